//! Handlers of what is computed with a key.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::Shared;
use super::asked::Asked;
use super::input::{self, OperationBody};
use super::problem::Problem;
use crate::VaultError;
use crate::embedded::blocking;
use crate::embedded::key::KeyOperation;
use crate::embedded::rsa::{Encryption, RsaKey, Signing};

type Answer = Result<Json<Value>, Problem>;

type Caller = State<Arc<Shared>>;

pub(super) async fn encrypt(State(shared): Caller, asked: Asked, body: Bytes) -> Answer {
    seal(&shared, &asked, &body, KeyOperation::Encrypt).await
}

pub(super) async fn wrap_key(State(shared): Caller, asked: Asked, body: Bytes) -> Answer {
    seal(&shared, &asked, &body, KeyOperation::WrapKey).await
}

pub(super) async fn decrypt(State(shared): Caller, asked: Asked, body: Bytes) -> Answer {
    open(&shared, &asked, &body, KeyOperation::Decrypt).await
}

pub(super) async fn unwrap_key(State(shared): Caller, asked: Asked, body: Bytes) -> Answer {
    open(&shared, &asked, &body, KeyOperation::UnwrapKey).await
}

pub(super) async fn sign(State(shared): Caller, asked: Asked, body: Bytes) -> Answer {
    let body: OperationBody = input::read(&body)?;
    let (how, digest) = (signing(&body.alg)?, body.value()?);
    let (kid, rsa) = usable(&shared, &asked, KeyOperation::Sign)?;
    let signature = blocking(move || rsa.sign(how, &digest).ok_or_else(|| wrong_digest(how))).await?;
    Ok(result(&kid, &signature))
}

pub(super) async fn verify(State(shared): Caller, asked: Asked, body: Bytes) -> Answer {
    let body: OperationBody = input::read(&body)?;
    let (how, digest, signature) = (signing(&body.alg)?, body.digest()?, body.value()?);
    let (_, rsa) = usable(&shared, &asked, KeyOperation::Verify)?;
    let valid = rsa.verify(how, &digest, &signature).ok_or_else(|| wrong_digest(how))?;
    Ok(Json(json!({"value": valid})))
}

/// Encrypts a value or wraps a key: both are the same but for the permission.
async fn seal(shared: &Shared, asked: &Asked, body: &Bytes, operation: KeyOperation) -> Answer {
    let body: OperationBody = input::read(body)?;
    let (how, value) = (encryption(&body.alg)?, body.value()?);
    let (kid, rsa) = usable(shared, asked, operation)?;
    Ok(result(&kid, &rsa.encrypt(how, &value)?))
}

/// Decrypts a value or unwraps a key. Whatever is wrong with it, the answer is the same.
async fn open(shared: &Shared, asked: &Asked, body: &Bytes, operation: KeyOperation) -> Answer {
    let body: OperationBody = input::read(body)?;
    let (how, value) = (encryption(&body.alg)?, body.value()?);
    let (kid, rsa) = usable(shared, asked, operation)?;
    let refused =
        || VaultError::Invalid("the value was not made with this key and algorithm, or was altered".to_owned());
    let opened = blocking(move || rsa.decrypt(how, &value).ok_or_else(refused)).await?;
    Ok(result(&kid, &opened))
}

/// The identifier of the version that the path names, and its key, if it may be used for `operation` now.
fn usable(shared: &Shared, asked: &Asked, operation: KeyOperation) -> Result<(String, Arc<RsaKey>), Problem> {
    let key = asked.key(shared)?;
    let version = key.version(asked.version()?.as_ref())?;
    let id = asked.id(&key.name, &version.version);
    version.may(operation, &id, shared.face.vault.state.now())?;
    Ok((id.to_string(), Arc::clone(&version.rsa)))
}

fn result(kid: &str, value: &[u8]) -> Json<Value> {
    Json(json!({"kid": kid, "value": BASE64URL_NOPAD.encode(value)}))
}

fn encryption(name: &str) -> Result<Encryption, Problem> {
    Encryption::parse(name).ok_or_else(|| Problem::bad(format!("`alg` is `{name}`; it can be: RSA-OAEP-256, RSA-OAEP")))
}

fn signing(name: &str) -> Result<Signing, Problem> {
    Signing::parse(name)
        .ok_or_else(|| Problem::bad(format!("`alg` is `{name}`; it can be: RS256, RS384, RS512, PS256, PS384, PS512")))
}

fn wrong_digest(how: Signing) -> VaultError {
    VaultError::Invalid(format!("a digest for this algorithm has {} bytes", how.digest_bytes()))
}
