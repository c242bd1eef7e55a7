//! What an S3 service, or the way to it, has against a request.

use std::io;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use crate::error::{Code, HfError};

/// An error of the client, read: it keeps the answer to itself but for its text.
///
/// The text also holds URLs, and a service may echo the request with its signature and access key. Only the HTTP status and
/// S3's error code are taken out of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Failure {
    /// HTTP status, where there was an answer.
    status: Option<u16>,
    /// S3's error code (`NoSuchBucket`).
    code: Option<String>,
    /// What the network did, where there was no answer.
    network: Option<String>,
    /// The answer was lost, or cut off: the request may have been done.
    lost: bool,
    conflict: bool,
    /// The client cannot name an object that the service listed.
    unnameable: bool,
}

impl Failure {
    pub(super) fn of(error: &Error) -> Self {
        let conflict = matches!(error, Error::AlreadyExists { .. });
        let unnameable = matches!(error, Error::InvalidPath { .. });
        let mut failure = Self { conflict, unnameable, ..Self::default() };
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = next {
            if let Some(http) = error.downcast_ref::<HttpError>() {
                failure.lost = !matches!(http.kind(), HttpErrorKind::Connect);
                failure.network.get_or_insert_with(|| words(http.kind()).to_owned());
            }
            if let Some(io) = error.downcast_ref::<io::Error>() {
                // Of the system's own errors, not of wrapped ones: those may quote anything.
                if let Some(number) = io.raw_os_error() {
                    failure.network = Some(io::Error::from_raw_os_error(number).to_string());
                }
            }
            next = error.source();
        }
        failure.read(&error.to_string());
        failure
    }

    fn read(&mut self, text: &str) {
        let after = |mark: &str| text.split_once(mark).map(|(_, after)| after);
        let word = |text: &str| -> String { text.chars().take_while(char::is_ascii_alphanumeric).take(64).collect() };
        self.status = after("status code: ").and_then(|text| word(text).parse().ok());
        let code = after("<Code>").or_else(|| after("(code: ")).map(word);
        self.code = code.filter(|code| !code.is_empty());
    }

    /// Tells whether the service does not know conditional writes.
    pub(super) fn refuses_condition(&self) -> bool {
        self.status == Some(501) || self.code.as_deref() == Some("NotImplemented")
    }

    /// Tells whether the object is there, or is being written by somebody else.
    pub(super) fn is_conflict(&self) -> bool {
        self.conflict
    }

    /// Tells whether the request may have been done all the same.
    pub(super) fn answer_was_lost(&self) -> bool {
        self.lost
    }

    pub(super) fn is_missing_bucket(&self) -> bool {
        self.code.as_deref() == Some("NoSuchBucket")
    }

    /// The error for callers.
    pub(super) fn told(&self, doing: &str, place: &str) -> HfError {
        let said = match (&self.status, &self.code, &self.network) {
            (Some(status), Some(code), _) => format!("the service answered {status} {code}"),
            (Some(status), None, _) => format!("the service answered {status}"),
            (None, Some(code), _) => format!("the service answered {code}"),
            (None, None, Some(network)) => network.clone(),
            (None, None, None) if self.unnameable => {
                "an object there has a name with `//`, `.` or `..` in it".to_owned()
            }
            (None, None, None) => "the service's answer makes no sense".to_owned(),
        };
        let unreachable = match self.status {
            None => self.network.is_some(),
            Some(status) => status >= 500 || status == 429 || status == 408,
        };
        let code = if unreachable { Code::Unavailable } else { Code::Io };
        let advice = match (self.status, self.code.as_deref()) {
            _ if self.unnameable => "; it is none of ours: remove it, or use another prefix",
            (_, Some("NoSuchBucket")) => "; create the bucket, or correct its name",
            (_, Some("SignatureDoesNotMatch")) => "; check secretAccessKey and region",
            (Some(401 | 403), _) => "; check accessKeyId and secretAccessKey, and what they may do with this bucket",
            (Some(301 | 307 | 308 | 400), _) => "; check region, endpoint and forcePathStyle",
            (Some(404), _) => "; check bucket, endpoint and forcePathStyle",
            _ if unreachable => "; is the service running and reachable?",
            _ => "; check the endpoint",
        };
        let mut made = HfError::new(code, format!("{doing} in {place} failed: {said}{advice}"));
        if let Some(status) = self.status {
            made = made.with_field("status", status);
        }
        if let Some(code) = &self.code {
            made = made.with_field("s3Code", code.as_str());
        }
        made
    }
}

fn words(kind: HttpErrorKind) -> &'static str {
    match kind {
        HttpErrorKind::Connect => "the service cannot be reached",
        HttpErrorKind::Timeout => "the service did not answer in time",
        HttpErrorKind::Decode => "the answer broke off, or is no HTTP",
        _ => "the connection broke",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Failure {
        Failure::of(&Error::Generic { store: "S3", source: text.into() })
    }

    #[test]
    fn only_status_and_code_are_told() {
        let text = "Error performing PUT https://u:hunter2@h/b/k in 5ms - Server returned non-2xx status code: 403 Forbidden: \
                    <Error><Code>SignatureDoesNotMatch</Code><StringToSign>hunter2</StringToSign></Error>";
        let error = failure(text).told("storing a blob", "the bucket b");
        assert_eq!(error.code(), Code::Io);
        assert_eq!(
            (&error.fields()["status"], &error.fields()["s3Code"]),
            (&403.into(), &"SignatureDoesNotMatch".into())
        );
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        assert!(error.message().contains("403 SignatureDoesNotMatch; check secretAccessKey"), "{error}");
        assert_eq!(
            failure("hunter2").told("x", "y").message(),
            "x in y failed: the service's answer makes no sense; check the endpoint"
        );
    }

    #[test]
    fn kinds() {
        assert!(failure("status code: 501 Not Implemented: ").refuses_condition());
        assert!(failure("status code: 400 Bad: <Code>NotImplemented</Code>").refuses_condition());
        assert!(!failure("status code: 412 Precondition Failed: ").refuses_condition());
        assert_eq!(failure("status code: 503 Slow: ").told("x", "y").code(), Code::Unavailable);
        assert!(failure("<Code>NoSuchBucket</Code>").is_missing_bucket());
        assert_eq!(failure("failed for key k: no (code: AccessDenied)").code.as_deref(), Some("AccessDenied"));
        let refused = io::Error::from_raw_os_error(111);
        let http = HttpError::new(HttpErrorKind::Connect, refused);
        let error = Failure::of(&Error::Generic { store: "S3", source: Box::new(http) });
        assert!(!error.answer_was_lost());
        let broken = HttpError::new(HttpErrorKind::Interrupted, io::Error::from_raw_os_error(104));
        assert!(Failure::of(&Error::Generic { store: "S3", source: Box::new(broken) }).answer_was_lost());
        let error = error.told("x", "y");
        assert_eq!(error.code(), Code::Unavailable);
        assert!(error.message().contains("onnection refused"), "{error}");
    }
}
