//! Tidegate beside its peers, as tables.

fn main() {}
