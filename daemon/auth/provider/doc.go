// Package provider verifies what outside OpenID providers sign: ID tokens (OpenID Connect Core 1.0), for which rtask issues a
// certificate or a token of its own, and access tokens that are bound to a client's certificate already (RFC 8705, RFC 9068).
//
// It is not for rtask's own tokens, which daemon/auth/token makes and verifies, and not for certificates. It opens no connection: the
// keys of the providers are in files, which a unit with a network of its own fetches. The packages of the engine may import it.
package provider
