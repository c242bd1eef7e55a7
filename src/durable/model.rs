//! The power-cut model (written with the tests).
