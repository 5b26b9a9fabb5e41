//! The rules of the `permissions` section.
