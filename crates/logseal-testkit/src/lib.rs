//! Development only: driven servers, canaries, OTLP requests.
