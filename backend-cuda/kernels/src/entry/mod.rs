//! The entry points, by what they are for.

#[cfg(feature = "check")]
mod flag;
#[cfg(feature = "kernels")]
mod kernels;
#[cfg(feature = "check")]
mod layout;
#[cfg(feature = "check")]
mod ring;
#[cfg(feature = "check")]
mod role;
