//! Routes with what the API's document says of them and with the roles that they admit: all come from one list, so none has what the others have
//! not.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{Next, from_fn};
use axum::routing::{MethodFilter, on};

use super::Management;
use super::auth::require_role;
use crate::gate::Role;

/// The methods that the API knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Method {
    Delete,
    Get,
    Patch,
    Post,
    Put,
}

impl Method {
    fn filter(self) -> MethodFilter {
        match self {
            Self::Delete => MethodFilter::DELETE,
            Self::Get => MethodFilter::GET,
            Self::Patch => MethodFilter::PATCH,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
        }
    }

    /// As the document spells it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Get => "get",
            Self::Patch => "patch",
            Self::Post => "post",
            Self::Put => "put",
        }
    }
}

/// What an answer carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    Nothing,
    /// JSON of this schema.
    Json(&'static str),
    /// Text of this media type.
    Text(&'static str),
    /// A query's result, in the form that was asked for.
    Result,
}

/// An answer that is no error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) says: &'static str,
    pub(super) content: Content,
    /// Names of headers in the document's components.
    pub(super) headers: &'static [&'static str],
}

/// What the document says of one method of one path.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) method: Method,
    /// With its fixed segments as Azure spells them.
    pub(super) path: String,
    /// `Group_Verb`.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// Names of parameters in the document's components, beside those of the path.
    pub(super) parameters: Vec<&'static str>,
    /// The schema of the body.
    pub(super) body: Option<&'static str>,
    pub(super) answers: Vec<Answer>,
    /// Statuses of errors.
    pub(super) errors: Vec<u16>,
    /// Whom it is for, beside who has the management token.
    pub(super) roles: &'static [Role],
    /// Whether it needs no token.
    pub(super) is_open: bool,
}

impl Endpoint {
    /// For `roles`; when there are none, for who has the management token alone.
    pub(super) fn new(
        roles: &'static [Role],
        method: Method,
        path: impl Into<String>,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        let (parameters, answers, errors) = (Vec::new(), Vec::new(), vec![401, 403, 429]);
        let (path, body, is_open) = (path.into(), None, false);
        Self { method, path, id, summary, parameters, body, answers, errors, roles, is_open }
    }

    /// Needs no token.
    pub(super) fn open(mut self) -> Self {
        (self.is_open, self.errors) = (true, Vec::new());
        self
    }

    pub(super) fn takes(mut self, parameters: &[&'static str]) -> Self {
        self.parameters.extend(parameters);
        self
    }

    pub(super) fn body(mut self, schema: &'static str) -> Self {
        self.body = Some(schema);
        self.fails(&[408, 413])
    }

    pub(super) fn answers(
        mut self,
        status: u16,
        says: &'static str,
        content: Content,
        headers: &'static [&'static str],
    ) -> Self {
        self.answers.push(Answer { status, says, content, headers });
        self
    }

    /// 200 with JSON of `schema`.
    pub(super) fn shows(self, schema: &'static str) -> Self {
        self.answers(200, "As it is now.", Content::Json(schema), &[])
    }

    pub(super) fn fails(mut self, statuses: &[u16]) -> Self {
        self.errors.extend(statuses);
        self
    }
}

/// The routes of a router, and what is said of them.
#[derive(Debug, Default)]
pub(super) struct Routes {
    router: Router<Arc<Management>>,
    endpoints: Vec<Endpoint>,
}

impl Routes {
    pub(super) fn at<H, T>(mut self, endpoint: Endpoint, handler: H) -> Self
    where
        H: Handler<T, Arc<Management>>,
        T: 'static,
    {
        let mut route = on(endpoint.method.filter(), handler);
        if !endpoint.is_open {
            let roles = endpoint.roles;
            route = route.route_layer(from_fn(move |request: Request, next: Next| require_role(roles, request, next)));
        }
        self.router = self.router.route(&template(&endpoint.path), route);
        self.endpoints.push(endpoint);
        self
    }

    pub(super) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    pub(super) fn into_router(self) -> Router<Arc<Management>> {
        self.router
    }
}

/// The path as the router has it, whose fixed segments compare in lower case.
fn template(path: &str) -> String {
    let segment = |text: &str| if text.starts_with('{') { text.to_owned() } else { text.to_ascii_lowercase() };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}
