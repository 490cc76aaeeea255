package control

import (
	"cmp"
	"context"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/issuer"
)

// Enroll implements GatewayService.
func (s *Server) Enroll(ctx context.Context, r *rtaskv1.EnrollRequest) (*rtaskv1.EnrollResponse, error) {
	remote := callOf(ctx).Remote
	reply := s.Enroller.Serve(r.Path, r.Body, remote)
	if reply.Kind == authority.KindNoCode { // a guess, or a client that asks for too long
		if s.guesses.Over(remote) {
			reply = issuer.TooMany()
		}
		s.guesses.Add(remote)
	}
	s.AuditEnrollment(reply, remote)
	return &rtaskv1.EnrollResponse{Status: uint32(reply.Status), ContentType: "application/json", Body: reply.Body}, nil
}

// AuditEnrollment writes what became of a request for a certificate.
func (s *Server) AuditEnrollment(r issuer.Reply, remote string) {
	d := decision{action: actionEnroll, remote: remote, kind: rtaskv1.Kind(r.Kind), reason: r.Proof}
	switch {
	case r.Err != nil:
		s.Logger.Error("cannot make a certificate", "error", r.Err)
		fallthrough
	case r.Kind != "":
		if r.Kind == authority.KindPending || r.Kind == authority.KindSlowDown {
			return // which every client hears that waits
		}
		d.decision, d.stranger = refused, true
		if d.reason != "" {
			d.reason += ": "
		}
		d.reason += r.Reason
	case r.Identity != nil:
		d.decision, d.subject, d.serial, d.provider = accepted, r.Identity.URI, r.Identity.Serial, r.Identity.Provider
	case r.Name != "": // which is no decision yet, and may be anybody's
		d.decision, d.moot, d.stranger, d.reason = accepted, true, true, "a device asks to be "+r.Name
	default:
		return
	}
	if d.decision == refused || r.Identity != nil {
		s.Enrolled(r.Proof, cmp.Or(r.Kind, accepted))
	}
	s.audit(d)
}
