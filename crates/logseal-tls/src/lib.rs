//! The deployment's own certificates, listeners and clients over TLS.
