// Package issuer is the HTTP side of rtask's own issuer: who has no certificate gets one here, and who has one gets tokens.
//
// It turns requests into calls of daemon/auth and back, and decides nothing by itself. daemon and daemon/control import it.
package issuer
