//! K2K on a host.
