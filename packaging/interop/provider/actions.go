package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// addActions adds what GitHub Actions has: an issuer of its own, and the endpoint where a job gets a token for an audience that it
// names (https://docs.github.com/actions/security-for-github-actions/security-hardening-your-deployments/about-security-hardening-with-openid-connect).
// The claims are added to each token.
func addActions(mux *http.ServeMux, issuer string, s *store, claims string) error {
	var more map[string]any
	if err := json.Unmarshal([]byte(claims), &more); err != nil {
		return fmt.Errorf("-claims: %w", err)
	}
	actions := issuer + "/actions"
	mux.HandleFunc("GET /actions/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{
			"issuer": actions, "jwks_uri": issuer + "/keys", "subject_types_supported": []string{"public"},
			"response_types_supported": []string{"id_token"}, "id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("GET /actions/token", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer runner" {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		now := time.Now()
		all := map[string]any{
			"iss": actions, "aud": r.URL.Query().Get("audience"), "jti": rand.Text(), "sub": "repo:example@1/site@456789:environment:production",
			"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "repository": "example/site",
		}
		maps.Copy(all, more)
		token, err := sign(r, s, all)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		writeJSON(w, map[string]any{"count": len(token), "value": token})
	})
	return nil
}

// sign makes a token with the key of the provider.
func sign(r *http.Request, s *store, claims map[string]any) (string, error) {
	key, err := s.SigningKey(r.Context())
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: key.SignatureAlgorithm(), Key: jose.JSONWebKey{Key: key.Key(), KeyID: key.ID()}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}
