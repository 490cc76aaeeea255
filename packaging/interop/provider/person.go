package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"
	"time"
)

// person is somebody with a browser, at the pages of the example server.
type person struct {
	name   string
	client *http.Client
}

// logIn opens a URL that rtaskctl printed, and does what its page asks for: it ends at rtaskctl's own page, or at that of the device
// flow which says that the device has what it wants, or not with deny.
func logIn(ctx context.Context, address, ca, name string, deny bool, to io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	pem, err := os.ReadFile(ca)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("there is no certificate in %s", ca)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	p := &person{name: name, client: &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}}
	page, at, err := p.get(ctx, address)
	if err != nil {
		return err
	}
	switch {
	case strings.HasPrefix(at.Path, "/login/"):
		page, err = p.browser(ctx, at)
	case at.Path == "/device" || at.Path == "/device/":
		page, err = p.device(ctx, at, deny)
	default:
		err = fmt.Errorf("%s is no page to log in: %s", at, page)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(to, strings.TrimSpace(page))
	return err
}

// browser fills in name and password. The answer leads back to rtaskctl.
func (p *person) browser(ctx context.Context, at *url.URL) (string, error) {
	form := url.Values{"id": {at.Query().Get("authRequestID")}, "username": {p.name}, "password": {password(p.name)}}
	page, end, err := p.post(ctx, at.ResolveReference(&url.URL{Path: "/login/username"}), form)
	if err == nil && end.Host == at.Host {
		err = fmt.Errorf("the login ended at %s: %s", end, page)
	}
	return page, err
}

// device fills in name and password, and allows or denies the device.
func (p *person) device(ctx context.Context, at *url.URL, deny bool) (string, error) {
	code := at.Query().Get("user_code")
	if code == "" {
		return "", errors.New("the URL has no user_code")
	}
	form := url.Values{"user_code": {code}, "username": {p.name}, "password": {password(p.name)}}
	if page, end, err := p.post(ctx, at.ResolveReference(&url.URL{Path: "/device/login"}), form); err != nil {
		return "", err
	} else if end.Path != "/device/login" {
		return "", fmt.Errorf("the login ended at %s: %s", end, page)
	}
	action := "allowed"
	if deny {
		action = "denied"
	}
	confirm := at.ResolveReference(&url.URL{Path: "/device/confirm", RawQuery: "action=" + action})
	page, _, err := p.get(ctx, confirm.String())
	return page, err
}

func (p *person) get(ctx context.Context, address string) (string, *url.URL, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", nil, err
	}
	return p.do(r)
}

func (p *person) post(ctx context.Context, to *url.URL, form url.Values) (string, *url.URL, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return "", nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return p.do(r)
}

// do returns the page that a request leads to, behind all redirections, and where that is.
func (p *person) do(r *http.Request) (string, *url.URL, error) {
	resp, err := p.client.Do(r)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return "", nil, fmt.Errorf("%s: %s: %s", resp.Request.URL.Host, resp.Status, page)
	}
	return string(page), resp.Request.URL, nil
}
