//! OAuth 2.0 and OpenID Connect: the only room that speaks them. Providers, their documents, keys and clocks; token
//! endpoints behind [`tidegate::token::TokenEndpoint`]; ID tokens; and the tokens that calls of upstreams carry.

pub mod binding;
pub mod client;
pub mod date;
pub mod dpop;
pub mod endpoint;
pub mod http;
pub mod id_token;
pub mod jose;
pub mod keys;
pub mod logout_token;
pub mod prove;
pub mod provider;
pub mod service;
pub mod session;
