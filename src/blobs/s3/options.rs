//! Which bucket, and how to get there.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, RetryConfig};

use crate::error::{Code, HfError, Result};

/// Where the original keeps its blobs.
pub const DEFAULT_PREFIX: &str = "script-packages/blobs/";

const CONNECT: Duration = Duration::from_secs(10);
/// Bound of one request that carries no blob.
const QUICK: Duration = Duration::from_secs(10);
/// Bound of one that does: a backstop, 1 GB at 2.5 Mbit/s. A service that keeps silent is given up long before.
const BULK: Duration = Duration::from_secs(3600);
const RETRIES: usize = 5;
const RETRY_FOR: Duration = Duration::from_secs(20);

/// A bucket. `Debug` shows no keys.
#[derive(Clone)]
pub struct S3Options {
    /// The bucket's name; it must exist.
    pub bucket: String,
    /// Access key.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// Default `us-east-1`. Some services want a name of their own (`auto`).
    pub region: Option<String>,
    /// `https://host:port`, or `http://` for tests; default is the region's endpoint of AWS.
    pub endpoint: Option<String>,
    /// Puts the bucket into the path, not before the host. Default false; always so with an IP address, `localhost`, and
    /// buckets whose names do not fit a host name.
    pub force_path_style: bool,
    /// What object names begin with, taken as it is; default [`DEFAULT_PREFIX`].
    pub prefix: Option<String>,
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("bucket", &self.bucket)
            .field("region", &self.region)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// An endpoint, taken apart.
struct Endpoint<'a> {
    scheme: &'a str,
    /// With the port.
    host: &'a str,
    path: &'a str,
}

fn invalid(why: &str) -> HfError {
    HfError::new(Code::InvalidArgument, format!("the options of the S3 blob store are not valid: {why}"))
}

impl<'a> Endpoint<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        // The text stays out of the message: somebody may have put a password into it.
        let wrong =
            || invalid("the endpoint must look like https://host:port, without user, password, query and fragment");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '@' | '?' | '#' | '"' | '<' | '>' | '\\');
        if !matches!(scheme, "http" | "https") || host.is_empty() || !rest.chars().all(plain) {
            return Err(wrong());
        }
        Ok(Self { scheme, host, path: path.trim_end_matches('/') })
    }

    /// Without the port.
    fn name(&self) -> &str {
        match self.host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => self.host.split(':').next().unwrap_or(self.host),
        }
    }

    fn url(&self, before_host: &str) -> String {
        let slash = if self.path.is_empty() { "" } else { "/" };
        format!("{}://{before_host}{}{slash}{}", self.scheme, self.host, self.path)
    }
}

impl S3Options {
    /// A client for requests that carry no blob, and one for those that do.
    pub(super) fn clients(&self) -> Result<(AmazonS3, AmazonS3)> {
        for (name, value) in [
            ("bucket", &self.bucket),
            ("accessKeyId", &self.access_key_id),
            ("secretAccessKey", &self.secret_access_key),
        ] {
            if value.is_empty() || value.chars().any(char::is_control) {
                return Err(invalid(&format!("{name} is empty, or holds control characters")));
            }
        }
        if !self.bucket.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')) {
            return Err(invalid("bucket may hold letters, digits, `-`, `.` and `_` only"));
        }
        if self.region.as_ref().is_some_and(|region| !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')) {
            return Err(invalid("region may hold letters, digits and `-` only"));
        }
        Ok((self.client(QUICK)?, self.client(BULK)?))
    }

    fn client(&self, timeout: Duration) -> Result<AmazonS3> {
        let endpoint = self.endpoint.as_deref().map(Endpoint::parse).transpose()?;
        let in_host = !self.force_path_style
            && fits_a_host(&self.bucket)
            && endpoint.as_ref().is_none_or(|endpoint| {
                endpoint.name().parse::<IpAddr>().is_err() && !endpoint.name().eq_ignore_ascii_case("localhost")
            });
        let http = ClientOptions::new()
            .with_connect_timeout(CONNECT)
            .with_timeout(timeout)
            .with_allow_http(endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme == "http"));
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_access_key_id(&self.access_key_id)
            .with_secret_access_key(&self.secret_access_key)
            .with_region(self.region.as_deref().filter(|region| !region.is_empty()).unwrap_or("us-east-1"))
            .with_virtual_hosted_style_request(in_host)
            // The hash of a large blob would keep a thread of the network busy; TLS protects the bytes as well.
            .with_unsigned_payload(endpoint.as_ref().is_none_or(|endpoint| endpoint.scheme != "http"))
            .with_client_options(http)
            .with_retry(RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_FOR, ..RetryConfig::default() });
        if let Some(endpoint) = endpoint {
            let before = if in_host { format!("{}.", self.bucket) } else { String::new() };
            builder = builder.with_endpoint(endpoint.url(&before));
        }
        // Everything was checked; what is left is a system without any trusted root certificates and the like.
        builder
            .build()
            .map_err(|_| invalid("the client refuses them; check endpoint and region, and the system's certificates"))
    }

    /// The prefix, if objects can be named so.
    pub(super) fn checked_prefix(&self) -> Result<String> {
        let prefix = self.prefix.as_deref().unwrap_or(DEFAULT_PREFIX);
        let name = format!("{prefix}00");
        // The client would name them otherwise without a word.
        if Path::parse(&name).is_ok_and(|path| path.as_ref() == name) && Path::from(name.as_str()).as_ref() == name {
            Ok(prefix.to_owned())
        } else {
            Err(invalid("prefix must not begin with `/`, nor hold `//`, `.` or `..` as a part, or special characters"))
        }
    }

    /// `bucket at endpoint`, for messages.
    pub(super) fn place(&self) -> String {
        match self.endpoint.as_deref().map(Endpoint::parse) {
            Some(Ok(endpoint)) => format!("the bucket {} at {}", self.bucket, endpoint.host),
            _ => format!("the bucket {}", self.bucket),
        }
    }
}

/// A bucket that can stand before the host: one label, so that the service's certificate covers it.
fn fits_a_host(bucket: &str) -> bool {
    bucket.len() <= 63
        && bucket.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !bucket.starts_with('-')
        && !bucket.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(endpoint: &str) -> S3Options {
        S3Options {
            bucket: "b-1".into(),
            access_key_id: "AKIDhunter2".into(),
            secret_access_key: "hunter2".into(),
            region: None,
            endpoint: Some(endpoint.into()),
            force_path_style: false,
            prefix: None,
        }
    }

    #[test]
    fn endpoints() {
        for (text, name, url) in [
            ("https://s3.example", "s3.example", "https://b-1.s3.example"),
            ("http://127.0.0.1:9000/", "127.0.0.1", "http://b-1.127.0.0.1:9000"),
            ("http://[::1]:9000", "::1", "http://b-1.[::1]:9000"),
            ("https://h:1/s3/", "h", "https://b-1.h:1/s3"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!((endpoint.name(), endpoint.url("b-1.")), (name, url.to_owned()), "{text}");
        }
        for bad in [
            "",
            "h",
            "ftp://h",
            "https://",
            "https://u:hunter2@h",
            "https://h?x=hunter2",
            "https://h#hunter2",
            "https://h /",
        ] {
            let error = options(bad).clients().unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{bad}");
            assert!(!error.message().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn prefixes() {
        let of = |prefix: &str| S3Options { prefix: Some(prefix.into()), ..options("https://h") }.checked_prefix();
        for good in ["", "a", "a/", "a/b-", DEFAULT_PREFIX] {
            assert_eq!(of(good).unwrap(), good);
        }
        for bad in ["/", "/a", "a//", "../", "a/./", "a\n"] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn debug_and_errors_show_no_keys() {
        assert!(!format!("{:?}", options("https://h")).contains("hunter2"));
        for broken in [
            S3Options { bucket: "a/b".into(), ..options("https://h") },
            S3Options { bucket: String::new(), ..options("https://h") },
            S3Options { secret_access_key: "hunter2\n".into(), ..options("https://h") },
            S3Options { access_key_id: String::new(), ..options("https://h") },
            S3Options { region: Some("hunter2/".into()), ..options("https://h") },
        ] {
            let error = broken.clients().unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
