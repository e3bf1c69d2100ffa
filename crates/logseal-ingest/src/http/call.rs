//! One call from its head to its answer.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::PATH;
use super::answer::{self, Elsewhere};
use super::body::RequestBody;
use crate::admission::over_budget;
use crate::connection::Remote;
use crate::decompress::{Encoding, expected_bytes};
use crate::door::{Accepted, Door, Refusal};
use crate::meter::Protocol;
use crate::passage::{Arrived, Call, Form, identify, receive, take_in};

/// What is waited for when a body does not say how long it will be. The rest must be free when it comes.
const UNANNOUNCED_BYTES: usize = 64 * 1024;

/// Answers one call.
pub(super) async fn answer(door: &Door, remote: &Remote, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let mut body = RequestBody::new(body);
    let form = form(&parts.headers);
    let elsewhere = match (parts.uri.path() == PATH, parts.method == Method::POST) {
        (true, true) => None,
        (true, false) => Some(Elsewhere::Method),
        (false, _) => Some(Elsewhere::Path),
    };
    let settled = match elsewhere {
        Some(elsewhere) => Err(answer::elsewhere(elsewhere, form)),
        None => {
            let call = Call::begin(door, Protocol::Http);
            let work = read(door, remote, &parts.headers, form, &mut body, call.start());
            call.settle(None, work).await.map_err(|(refusal, delay)| answer::refused(&refusal, delay, form))
        }
    };
    match settled {
        Ok(accepted) => answer::acknowledged(&accepted, form.unwrap_or(Form::Protobuf)),
        Err(refused) => {
            body.leave(&parts.headers, door.admission.limits().request_bytes);
            refused
        }
    }
}

/// Everything between the head and the answer, cheapest refusal first.
async fn read(
    door: &Door,
    remote: &Remote,
    headers: &HeaderMap,
    form: Option<Form>,
    body: &mut RequestBody<Incoming>,
    start: Instant,
) -> Result<Accepted, Refusal> {
    let workspace = identify(door, remote, headers)?;
    let form = form.ok_or_else(|| {
        Refusal::Unsupported(
            "unknown `content-type`; accepted are `application/x-protobuf,application/json`".to_owned(),
        )
    })?;
    let encoding = encoding(headers)?;
    let (admission, limits) = (&door.admission, door.admission.limits());
    let announced = body.announced();
    if announced.is_some_and(|bytes| bytes > limits.request_bytes as u64) {
        return Err(Refusal::too_large("the announced length of the request", limits.request_bytes));
    }
    // At most the limit, which is a usize.
    let announced = announced.map(|bytes| bytes as usize);
    let hold = admission.hold(workspace, start, None);
    admission.pace(workspace, &hold).await?;
    let expected = announced.unwrap_or(UNANNOUNCED_BYTES.min(limits.request_bytes));
    let expansion = door.intake.expansion(workspace);
    let needed = expected_bytes(encoding, expected, limits.request_bytes, expansion);
    let permit = admission.take(needed, &hold).await?;
    let arrived = AtomicU64::new(0);
    let read = body.read(expected, permit, limits.request_bytes, &arrived);
    let (wire, mut permit) = receive(door, workspace, &arrived, read).await?;
    // What is compressed asks for its own memory, which its size does not tell.
    if encoding == Encoding::Identity {
        let needed = wire.len() + expansion.chunk_bytes(wire.len());
        if !permit.try_cover(needed) {
            return Err(over_budget());
        }
        permit.shrink_to(needed);
    }
    take_in(door, Arrived { workspace, hold, encoding, form, expansion, wire, permit }).await
}

/// The form that the content type names; its parameters mean nothing here.
fn form(headers: &HeaderMap) -> Option<Form> {
    let value = headers.get(header::CONTENT_TYPE)?.as_bytes();
    let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if kind.eq_ignore_ascii_case(b"application/x-protobuf") {
        Some(Form::Protobuf)
    } else if kind.eq_ignore_ascii_case(b"application/json") {
        Some(Form::Json)
    } else {
        None
    }
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(name) = values.next() else { return Ok(Encoding::Identity) };
    let known = Encoding::parse(name.as_bytes().trim_ascii()).filter(|_| values.next().is_none());
    known.ok_or_else(|| {
        Refusal::Unsupported(format!("unknown `content-encoding`; accepted is one of `{}`", Encoding::NAMES))
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_form_is_what_the_content_type_says() {
        for (value, expected) in [
            ("application/x-protobuf", Some(Form::Protobuf)),
            ("Application/X-Protobuf", Some(Form::Protobuf)),
            ("application/json", Some(Form::Json)),
            ("application/json; charset=utf-8", Some(Form::Json)),
            (" application/json ;a=b", Some(Form::Json)),
            ("application/protobuf", None),
            ("application/jsonl", None),
            ("text/plain", None),
            ("", None),
        ] {
            assert_eq!(form(&headers(header::CONTENT_TYPE, &[value])), expected, "{value}");
        }
        assert_eq!(form(&HeaderMap::new()), None);
    }

    #[test]
    fn one_known_encoding_is_taken() {
        for (values, expected) in [
            (&[][..], Some(Encoding::Identity)),
            (&["identity"], Some(Encoding::Identity)),
            (&["gzip"], Some(Encoding::Gzip)),
            (&["GZIP "], Some(Encoding::Gzip)),
            (&["deflate"], Some(Encoding::Deflate)),
            (&["zstd"], Some(Encoding::Zstd)),
            (&["br"], None),
            (&["gzip, gzip"], None),
            (&["gzip", "gzip"], None),
            (&[""], None),
        ] {
            assert_eq!(encoding(&headers(header::CONTENT_ENCODING, values)).ok(), expected, "{values:?}");
        }
    }
}
