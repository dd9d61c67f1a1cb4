//! tidegate-etcd
