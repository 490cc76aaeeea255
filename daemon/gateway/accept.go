package gateway

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// preferred returns which of the media types on offer a client prefers by its Accept header (RFC 9110, section 12.5.1): the one
// with the highest weight, then the one that it names most exactly, then the one that it names first. It is the first offer if
// the client names none: another answer than a client wants is of more use than none.
func preferred(r *http.Request, offers ...string) string {
	ranges := acceptRanges(r.Header.Values("Accept"))
	best, found := offers[0], mediaRange{}
	for _, offer := range offers {
		if m := rangeOf(ranges, offer); m.weight > 0 && m.better(found) {
			best, found = offer, m
		}
	}
	return best
}

// mediaRange is a part of an Accept header.
type mediaRange struct {
	name     string // "text/plain", "text/*" or "*/*"
	weight   float64
	exact    int // 2: a type, 1: all types of one kind, 0: any
	position int
}

// better reports whether a client prefers what m is about to what o is about.
func (m mediaRange) better(o mediaRange) bool {
	switch {
	case m.weight != o.weight:
		return m.weight > o.weight
	case m.exact != o.exact:
		return m.exact > o.exact
	default:
		return m.position < o.position
	}
}

// acceptRanges reads Accept headers. A part that is not well-formed is left out. Parameters but the weight mean nothing: no
// offer has several forms.
func acceptRanges(headers []string) []mediaRange {
	var all []mediaRange
	for position, part := range strings.Split(strings.Join(headers, ","), ",") {
		name, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		if name == "*" { // java.net.HttpURLConnection
			name = "*/*"
		}
		m := mediaRange{name: name, weight: 1, exact: 2, position: position}
		switch {
		case name == "*/*":
			m.exact = 0
		case strings.HasSuffix(name, "/*"):
			m.exact = 1
		}
		if q, ok := params["q"]; ok {
			if m.weight, err = strconv.ParseFloat(q, 64); err != nil || !(m.weight >= 0 && m.weight <= 1) {
				continue
			}
		}
		all = append(all, m)
	}
	return all
}

// rangeOf returns the most exact range that a media type is in. It has the weight 0 if there is none.
func rangeOf(ranges []mediaRange, name string) mediaRange {
	kind, _, _ := strings.Cut(name, "/")
	found := mediaRange{exact: -1}
	for _, m := range ranges {
		if (m.name == name || m.name == kind+"/*" || m.name == "*/*") && m.exact > found.exact {
			found = m
		}
	}
	return found
}

// streams reports whether a task's output is sent as it comes: where the client prefers text/plain to JSON, and gets the trailers
// that say how the job ended.
func streams(r *http.Request) bool {
	return preferred(r, "application/json", "text/plain") == "text/plain" && getsTrailers(r)
}

// getsTrailers reports whether the trailers of a reply come to the client. HTTP/1.0 has none, and browsers do not show them to
// their pages. A client that connects directly gets them, whether it says TE: trailers (RFC 9110, section 6.5.1) or not: curl
// does not. A proxy may drop them, so behind one the request must say so.
func getsTrailers(r *http.Request) bool {
	h := r.Header
	switch {
	case !r.ProtoAtLeast(1, 1), h.Get("Sec-Fetch-Mode") != "", h.Get("Origin") != "":
		return false
	case takesTrailers(h.Values("Te")):
		return true
	}
	for _, proxys := range []string{"Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-Ip"} {
		if len(h.Values(proxys)) > 0 {
			return false
		}
	}
	return true
}

func takesTrailers(te []string) bool {
	for part := range strings.SplitSeq(strings.Join(te, ","), ",") {
		name, _, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), "trailers") {
			return true
		}
	}
	return false
}
