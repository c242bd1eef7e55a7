//! Lets the addon link against Node-API; the plain engine needs nothing.

fn main() {
    #[cfg(feature = "node")]
    napi_build::setup();
}
