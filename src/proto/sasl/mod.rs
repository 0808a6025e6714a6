//! SASL (RFC 4422): what mechanisms say, apart from the protocol that carries it.

pub mod upstream;
