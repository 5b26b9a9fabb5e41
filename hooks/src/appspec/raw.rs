//! YAML text into a small tree that keeps positions.
