// Package log is a job's log file: appended to by the shim, read and followed by the engine. The format is the one of
// the container runtime interface (CRI), which every log shipper reads:
//
//	2026-03-01T12:00:00.000000000Z stdout F a whole line
//	2026-03-01T12:00:00.000000000Z stderr P a piece of a line, which the next record of its stream goes on with
//
// A record ends with a newline. An F record stands for its content and a newline, a P record for its content alone, so
// that the contents of one stream's records put together are what the job wrote, byte for byte: a job may write any
// bytes, and its last line need not end.
//
// It knows nothing of jobs, where files lie or how long they are kept. The shim and the engine may import it; it imports
// nothing of the project.
//
// Source of the format: the Kubernetes design proposal "CRI: Log management for container stdout/stderr streams"
// (kubernetes/design-proposals-archive, node/kubelet-cri-logging.md) and the kubelet's parser,
// k8s.io/cri-client/pkg/logs.
package log

import "time"

// Stream is one of a process's two outputs.
type Stream uint8

// The streams. Their numbers are those of the file descriptors.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// String returns the name of s in the format.
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// Entry is output read from a log file: a record or several adjacent records of one stream.
type Entry struct {
	// Time is when it was read from the job; of several records, the time of the first (but see View.Times).
	Time time.Time
	// Stream is where the job wrote it.
	Stream Stream
	// Data is the output, newlines included. It is valid until the Reader's next call.
	Data []byte
	// Offset is where the file goes on behind the record, in bytes: what to give NewReader to read on from here.
	Offset int64
}

const (
	// maxPiece is the longest content of a record that a Writer makes, in bytes.
	maxPiece = 32 << 10
	// maxLine is the longest record that a Reader reads, newline included, in bytes. It leaves room for writers other
	// than ours: containerd's longest is 16 KiB.
	maxLine = 128 << 10
	// maxBatch is how much output NextBatch puts together, in bytes.
	maxBatch = 64 << 10
	// flushSize is how many formatted bytes a Writer collects before a write(2) in the middle of a chunk.
	flushSize = 256 << 10
	// timeFormat is time.RFC3339Nano with all nine digits, as the kubelet and containerd write it.
	timeFormat = "2006-01-02T15:04:05.000000000Z07:00"
)
