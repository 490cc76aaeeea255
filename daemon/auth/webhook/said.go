package webhook

// WithEvent is d with an event that was found where a user says that it stands. The sender's other name for it, and what rtask
// knows of the bodies of its events, mean nothing then. A ping stays the one that it is, which says how it is answered.
func (d Delivery) WithEvent(event string) Delivery {
	if d.Ping {
		return d
	}
	d.Event, d.Other, d.Unlike = line(event), "", ""
	return d
}

// WithRef is d with a branch or a tag that was found where a user says that it stands.
func (d Delivery) WithRef(ref string) Delivery {
	d.Ref = line(ref)
	return d
}

// WithID is d with an id that was found where a user says that it stands. signed says that it stands in a signed body.
func (d Delivery) WithID(id string, signed bool) Delivery {
	if d.ID = line(id); signed {
		d.SignedID = d.ID
	}
	return d
}

// OfSigned is p for a request whose id stands in its body, which is signed, whatever else is: repeats are known by it.
func (p Proof) OfSigned(id string) Proof {
	if id == "" {
		return p
	}
	return Proof{Fresh: true, Key: key("id", []byte(id))}
}

// SignsBody reports whether all of a request's body is signed, as it is. Of a form as Twilio signs it, the ends of names and values
// are not.
func (s Scheme) SignsBody() bool {
	row := s.sender()
	return row != nil && row.signs("{body}")
}
