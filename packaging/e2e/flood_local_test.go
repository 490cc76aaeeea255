package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// beginLocal starts the floods of a user of this machine: connections to the control socket, requests there, and signals on the
// system's bus that look like systemd's.
func (d *deluge) beginLocal() {
	const socket = "/run/rtask/rtask.sock"
	for name, text := range map[string]string{
		"idle, control":      "",
		"slow head, control": "POST /rtask.v1.JobService/Start HTTP/1.1\r\nA: ",
		"slow body, control": "POST /rtask.v1.JobService/Start HTTP/1.1\r\nHost: rtask\r\nContent-Type: application/proto\r\nContent-Length: 1000000\r\n\r\nx",
		"HTTP/2, control":    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	} {
		for range 50 {
			d.repeat(name, time.Second, func() error {
				c, err := net.DialTimeout("unix", socket, 10*time.Second)
				if err != nil {
					return err
				}
				return d.keep(c, text)
			})
		}
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	for name, body := range map[string]string{
		"start, control": `{"task":"normal"}`, "list, control": `{"all":true}`, "nonsense, control": strings.Repeat("{", 100_000),
	} {
		method := "Start"
		if strings.HasPrefix(name, "list") {
			method = "List"
		}
		for range 4 {
			d.repeat(name, 20*time.Millisecond, func() error {
				r, err := http.NewRequest("POST", "http://rtask/rtask.v1.JobService/"+method, strings.NewReader(body))
				if err != nil {
					return err
				}
				r.Header.Set("Content-Type", "application/json")
				return d.answer(name, client, r)
			})
		}
	}
	d.repeat("signals", time.Second, d.signal)
}

// signal says on the bus, until the floods end or the bus hangs up, that scopes of rtask's have failed.
func (d *deluge) signal() error {
	bus, err := dbus.ConnectSystemBus()
	if err != nil {
		return err
	}
	defer bus.Close()
	for n := uint32(1); ; n++ {
		unit := "rtask-normal-" + string('0'+rune(n%10)) + ".scope"
		if err := bus.Emit("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager.JobRemoved", n,
			dbus.ObjectPath("/org/freedesktop/systemd1/job/7"), unit, "failed"); err != nil {
			return err
		}
		d.add("signals sent")
		select {
		case <-d.stop:
			return nil
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// keep sends text on a connection and a letter now and then, until the server closes it or the floods end.
func (d *deluge) keep(c net.Conn, text string) error {
	defer c.Close()
	ended := make(chan struct{})
	d.all.Go(func() {
		defer close(ended)
		if text != "" {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
		_, _ = c.Read(make([]byte, 1)) // an answer, or the end
	})
	letters := time.NewTicker(3 * time.Second)
	defer letters.Stop()
	for {
		select {
		case <-ended:
			return nil
		case <-d.stop:
			_ = c.Close()
			<-ended
			return nil
		case <-letters.C:
			if text != "" {
				_, _ = io.WriteString(c, "a")
			}
		}
	}
}
