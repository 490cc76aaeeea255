package view

import rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"

// Key is an API key. Secret is set only where the key was just made.
type Key struct {
	Name       string `json:"name"`
	ID         string `json:"id"`
	CreatedAt  string `json:"created_at"`
	ExpiresAt  string `json:"expires_at,omitempty"`
	LastUsedAt string `json:"last_used_at,omitempty"`
	Secret     string `json:"key,omitempty"`
}

// KeyOf is an API key without its secret.
func KeyOf(k *rtaskv1.Key) Key {
	return Key{
		Name: k.GetName(), ID: k.GetId(), CreatedAt: Time(k.GetCreatedAt()), ExpiresAt: Time(k.GetExpiresAt()),
		LastUsedAt: Time(k.GetLastUsedAt()),
	}
}

// Webhook is a webhook of a task.
type Webhook struct {
	Task string `json:"task"`
	Name string `json:"name"`
	// URL is empty where its token is not there yet.
	URL    string `json:"url"`
	Verify string `json:"verify"`
	// Problem is why it cannot work now.
	Problem string `json:"problem,omitempty"`
}

// WebhookOf is a webhook.
func WebhookOf(w *rtaskv1.Webhook) Webhook {
	return Webhook{Task: w.GetTask(), Name: w.GetName(), URL: w.GetUrl(), Verify: w.GetVerify(), Problem: w.GetProblem()}
}

// Delivery is a request to a webhook that is kept.
type Delivery struct {
	ID         string `json:"id"`
	Task       string `json:"task"`
	Webhook    string `json:"webhook"`
	ReceivedAt string `json:"received_at"`
	// Delivery is the sender's name for it.
	Delivery  string `json:"delivery,omitempty"`
	Event     string `json:"event,omitempty"`
	Ref       string `json:"ref,omitempty"`
	Decision  string `json:"decision"`
	Kind      string `json:"kind,omitempty"`
	Reason    string `json:"reason,omitempty"`
	BodyBytes int64  `json:"body_bytes"`
}

// DeliveryOf is a delivery.
func DeliveryOf(d *rtaskv1.Delivery) Delivery {
	return Delivery{
		ID: d.GetId(), Task: d.GetTask(), Webhook: d.GetWebhook(), ReceivedAt: Time(d.GetReceivedAt()), Delivery: d.GetDelivery(), Event: d.GetEvent(),
		Ref: d.GetRef(), Decision: d.GetDecision(), Kind: d.GetKind(), Reason: d.GetReason(), BodyBytes: d.GetBodyBytes(),
	}
}

// Diagnostic is an error or a warning about the configuration.
type Diagnostic struct {
	Severity string `json:"severity"`
	Summary  string `json:"summary"`
	Detail   string `json:"detail,omitempty"`
	File     string `json:"file"`
	Line     int32  `json:"line,omitempty"`
	Column   int32  `json:"column,omitempty"`
	Source   string `json:"source,omitempty"`
}

// DiagnosticOf is a diagnostic.
func DiagnosticOf(d *rtaskv1.Diagnostic) Diagnostic {
	v := Diagnostic{Severity: "warning", Summary: d.Summary, Detail: d.Detail, File: d.File, Line: d.Line, Column: d.Column, Source: d.Source}
	if d.Error {
		v.Severity = "error"
	}
	return v
}
