//! Packages: npm packages of a manifest as an immutable `node_modules` tree, without a registry.
//!
//! Pure parts, data to data: [`names`] (what may name a package, a tree, a cache entry), [`lockfile`] (order and hash of a
//! manifest), [`place`] (where in `node_modules` each package goes), [`bun_lock`] (the same as a `bun.lock`). Shells around
//! them: [`archive`] (one package as a blob and back), [`store`] (the folder of a host).

pub mod archive;
pub mod bun_cache;
pub mod bun_lock;
pub mod lockfile;
pub mod names;
pub mod place;
pub mod store;
