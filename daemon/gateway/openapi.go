package gateway

import (
	_ "embed"
	"net/http"
)

// openapiDocument describes the HTTP API (OpenAPI 3.0). It is part of the program: the gateway reads no file.
//
//go:embed openapi.json
var openapiDocument []byte

// openapi serves GET /openapi.json.
func openapi(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	readInTime(w)
	_, _ = w.Write(openapiDocument) // a client that is gone is no error
}
