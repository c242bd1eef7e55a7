//! Blob stores.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{PromiseRaw, Uint8Array};
use napi_derive::napi;
use serde::Deserialize;

use crate::binding::durable::message;
use crate::binding::{failure, settle};
use crate::blobs::{BlobStore, Encoding, FileBlobs, Gate, PostgresBlobs, PostgresOptions, SqliteBlobs};
use crate::error::Result;
use crate::postgres;
use crate::sqlite::{Network, Target};

/// Where blobs are.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
enum Config {
    File {
        root: PathBuf,
    },
    #[serde(rename_all = "camelCase")]
    Sqlite {
        path: PathBuf,
        network_file_system: Network,
    },
    #[serde(rename_all = "camelCase")]
    Postgres {
        connection: Box<postgres::Config>,
        table: Option<String>,
        base64_text: bool,
    },
    S3(S3),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(not(feature = "s3"), allow(dead_code, reason = "nobody reads it without the feature"))]
struct S3 {
    bucket: String,
    access_key_id: String,
    secret_access_key: String,
    region: Option<String>,
    endpoint: Option<String>,
    force_path_style: Option<bool>,
    prefix: Option<String>,
}

/// A blob store.
#[napi]
pub struct PackagesBlobs {
    blobs: Arc<dyn BlobStore>,
}

#[napi]
impl PackagesBlobs {
    /// Describes a store; nothing is opened yet.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: &Env, config: String) -> napi::Result<Self> {
        failure::sync(env, || {
            let blobs: Arc<dyn BlobStore> = match message::<Config>(&config)? {
                Config::File { root } => Arc::new(Gate::new(FileBlobs::new(Path::new(&root)))),
                Config::Sqlite { path, network_file_system } => {
                    Arc::new(Gate::new(SqliteBlobs::new(Target::File(path), network_file_system)))
                }
                Config::Postgres { connection, table, base64_text } => {
                    let encoding = if base64_text { Encoding::Base64Text } else { Encoding::Bytea };
                    let options = PostgresOptions { config: *connection, table, encoding };
                    Arc::new(Gate::new(PostgresBlobs::new(options)?))
                }
                Config::S3(s3) => s3_blobs(s3)?,
            };
            Ok(Self { blobs })
        })
    }

    /// Keeps a blob.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn put<'e>(&self, env: &'e Env, integrity: String, bytes: &[u8]) -> napi::Result<PromiseRaw<'e, ()>> {
        let (promise, ticket) = settle::promise(env)?;
        self.blobs.put(integrity, bytes.to_vec(), Box::new(move |outcome| ticket.settle(outcome)));
        Ok(promise)
    }

    /// Reads a blob.
    #[napi(ts_return_type = "Promise<Uint8Array | null>")]
    pub fn get<'e>(&self, env: &'e Env, integrity: String) -> napi::Result<PromiseRaw<'e, Option<Uint8Array>>> {
        let (promise, ticket) = settle::promise(env)?;
        let done = move |found: Result<Option<Vec<u8>>>| ticket.settle(found.map(|found| found.map(Uint8Array::new)));
        self.blobs.get(integrity, Box::new(done));
        Ok(promise)
    }

    /// Whether a blob is there.
    #[napi(ts_return_type = "Promise<boolean>")]
    pub fn has<'e>(&self, env: &'e Env, integrity: String) -> napi::Result<PromiseRaw<'e, bool>> {
        let (promise, ticket) = settle::promise(env)?;
        self.blobs.has(integrity, Box::new(move |outcome| ticket.settle(outcome)));
        Ok(promise)
    }

    /// Removes a blob.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn delete<'e>(&self, env: &'e Env, integrity: String) -> napi::Result<PromiseRaw<'e, ()>> {
        let (promise, ticket) = settle::promise(env)?;
        self.blobs.delete(integrity, Box::new(move |outcome| ticket.settle(outcome)));
        Ok(promise)
    }

    /// All keys.
    #[napi(ts_return_type = "Promise<string[]>")]
    pub fn list<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, Vec<String>>> {
        let (promise, ticket) = settle::promise(env)?;
        self.blobs.list(Box::new(move |outcome| ticket.settle(outcome)));
        Ok(promise)
    }

    /// Lets go of files and connections.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, ()>> {
        let (promise, ticket) = settle::promise(env)?;
        self.blobs.close(Box::new(move |outcome| ticket.settle(outcome)));
        Ok(promise)
    }
}

#[cfg(feature = "s3")]
fn s3_blobs(s3: S3) -> Result<Arc<dyn BlobStore>> {
    use crate::blobs::{S3Blobs, S3Options};
    let S3 { bucket, access_key_id, secret_access_key, region, endpoint, force_path_style, prefix } = s3;
    let options = S3Options {
        bucket,
        access_key_id,
        secret_access_key,
        region,
        endpoint,
        force_path_style: force_path_style.unwrap_or(false),
        prefix,
    };
    Ok(Arc::new(Gate::new(S3Blobs::new(&options)?)))
}

#[cfg(not(feature = "s3"))]
fn s3_blobs(_: S3) -> Result<Arc<dyn BlobStore>> {
    use crate::error::{Code, HfError};
    Err(HfError::new(Code::Unavailable, "this build of holdfast has no S3; build it with the feature `s3`"))
}
