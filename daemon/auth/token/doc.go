// Package token makes and verifies rtask's own access tokens: JWTs (RFC 9068) that are bound to the certificate of the client that
// they were made for (RFC 8705), so a stolen one is of no use without that certificate's key. It keeps the keys that sign them.
//
// It is not for certificates, which daemon/auth/authority checks, and not for what a caller may do. It serves no request: the HTTP
// side of the issuer is daemon/issuer. The packages of the engine may import it, the gateway and rtaskctl may not.
package token
