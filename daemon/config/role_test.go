package config

import (
	"slices"
	"strings"
	"testing"
)

// TestRolesOf: a * stands for one part of a name, and no client can write a name that crosses one.
func TestRolesOf(t *testing.T) {
	folder(t, map[string]string{"rtask.hcl": `
		provider "corp" {
			issuer    = "https://sso.example.org"
			client_id = "rtaskctl"
		}
		role "users" {
			subjects = ["spiffe://example.org/user/*"]
			methods  = ["read"]
		}
		role "ci" {
			subjects = ["spiffe://example.org/machine/ci-*", "spiffe://example.org/ns/*/sa/*"]
			methods  = ["run"]
		}
		role "ops" {
			subjects = ["CN=ops,O=Example", "CN=*,OU=Ops,O=Example"]
			methods  = ["run"]
		}
		role "group" {
			groups  = ["corp:ops"]
			methods = ["run"]
		}
		role "provider" {
			groups  = ["corp"]
			methods = ["run"]
		}`})
	cfg, diags := Load(here())
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	for _, c := range []struct {
		identity, dn string
		groups       []string
		want         string
	}{
		{"", "", nil, ""},
		{"spiffe://example.org/user/alice", "", nil, "users"},
		{"spiffe://example.org/user/alice@example.org", "", nil, "users"},
		{"spiffe://example.org/user/", "", nil, ""},
		{"spiffe://example.org/user/alice/x", "", nil, ""},
		{"spiffe://example.org/user/alice?x", "", nil, ""},
		{"spiffe://example.org/user/alice#x", "", nil, ""},
		{"spiffe://example.org.evil.test/user/alice", "", nil, ""},
		{"SPIFFE://example.org/user/alice", "", nil, ""},
		{"x spiffe://example.org/user/alice", "", nil, ""},
		{"spiffe://example.org/machine/ci-1", "", nil, "ci"},
		{"spiffe://example.org/machine/ci-", "", nil, ""},
		{"spiffe://example.org/machine/ci", "", nil, ""},
		{"spiffe://example.org/ns/a/sa/b", "", nil, "ci"},
		{"spiffe://example.org/ns/a/b/sa/c", "", nil, ""},
		{"spiffe://example.org/ns/a/sa/", "", nil, ""},
		{"", "CN=ops,O=Example", nil, "ops"},
		{"CN=ops,O=Example", "", nil, ""},
		{"", "spiffe://example.org/user/alice", nil, ""},
		{"", "CN=ops,O=Example,C=DE", nil, ""},
		{"", "CN=alice,OU=Ops,O=Example", nil, "ops"},
		{"", `CN=alice\,OU=Ops,O=Example`, nil, ""}, // one whose common name is "alice,OU=Ops"
		{"", `CN=alice\,x,OU=Ops,O=Example`, nil, ""},
		{"", `CN=alice+UID=1,OU=Ops,O=Example`, nil, ""},
		{"", "", []string{"corp"}, "provider"},
		{"", "", []string{"corp", "corp:ops"}, "group provider"},
		{"", "", []string{"corp:ops:x", "corpx", ""}, ""},
		{"spiffe://example.org/user/alice", "CN=ops,O=Example", []string{"corp:ops"}, "users ops group"},
	} {
		var got []string
		for _, r := range cfg.RolesOf(c.identity, c.dn, c.groups) {
			got = append(got, r.Name)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q, %q in %q has %q, want %q", c.identity, c.dn, c.groups, got, c.want)
		}
	}
}

// TestMatches compares the search with one that tries everything.
func TestMatches(t *testing.T) {
	var try func(pattern, text string, least int) bool
	try = func(pattern, text string, least int) bool {
		switch {
		case pattern == "":
			return text == ""
		case pattern[0] != '*':
			return text != "" && text[0] == pattern[0] && try(pattern[1:], text[1:], least)
		}
		for n := 0; n <= len(text) && !strings.Contains(text[:n], "/"); n++ {
			if n >= least && try(pattern[1:], text[n:], least) {
				return true
			}
		}
		return false
	}
	words := []string{""}
	for n := 0; n < len(words) && len(words[n]) < 5; n++ {
		for _, c := range []string{"a", "/", "*"} {
			words = append(words, words[n]+c)
		}
	}
	count := 0
	for _, pattern := range words {
		for _, text := range words {
			if strings.Contains(text, "*") {
				continue
			}
			for _, least := range []int{0, 1} {
				got := matches(pattern, text, least, "/")
				if got != try(pattern, text, least) {
					t.Fatalf("matches(%q, %q, %d) = %v", pattern, text, least, got)
				}
				if got {
					count++
				}
			}
		}
	}
	if count < 1000 {
		t.Errorf("only %d match", count)
	}
}

// TestRoleHas: a pattern of tasks stands for names of tasks.
func TestRoleHas(t *testing.T) {
	r := &Role{Tasks: []string{"build", "deploy-*", "*-x-*"}}
	var has []string
	for _, task := range []string{"build", "builds", "deploy-", "deploy-a", "deploy", "a-x-b", "-x-", "", "x"} {
		if r.Has(task) {
			has = append(has, task)
		}
	}
	if want := []string{"build", "deploy-", "deploy-a", "a-x-b", "-x-"}; !slices.Equal(has, want) {
		t.Errorf("has %q, want %q", has, want)
	}
	if (&Role{}).Has("") || (&Role{}).Has("build") {
		t.Error("a role without tasks has one")
	}
	if !(&Role{Tasks: []string{"*"}}).Has("build") {
		t.Error("* is not every task")
	}
}

// TestRemoteURL: tokens have an issuer without a word in the configuration.
func TestRemoteURL(t *testing.T) {
	cfg, _ := Load(Options{})
	if got := cfg.RemoteURL("Build.example.org"); got != "https://build.example.org:8843" {
		t.Error(got)
	}
	cfg.Remote.URL = "https://other:1"
	if got := cfg.RemoteURL("build"); got != "https://other:1" {
		t.Error(got)
	}
}
