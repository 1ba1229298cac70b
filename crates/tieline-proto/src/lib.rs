//! The wire: client messages, REST bodies, identifiers, filters, error and close codes. No I/O.
