package rtaskv1

import "strings"

// Each State, Reason and Status has a word, which is its name in rtask.proto without the prefix: STATE_RUNNING is "running",
// REASON_EXIT_CODE "exit-code". It is what the HTTP API, rtaskctl and the engine's own job.State and spec.Reason say.

func word(names map[int32]string, n int32) string {
	name := names[n]
	if name == "" || n == 0 {
		return ""
	}
	_, name, _ = strings.Cut(name, "_")
	return strings.ToLower(strings.ReplaceAll(name, "_", "-"))
}

func value(values map[string]int32, prefix, word string) int32 {
	return values[prefix+strings.ToUpper(strings.ReplaceAll(word, "-", "_"))]
}

// Word is "queued", "running", "stopping" or "ended"; "unknown" for a state that only a newer engine knows.
func (s State) Word() string {
	if w := word(State_name, int32(s)); w != "" {
		return w
	}
	return "unknown"
}

// Word is a reason such as "exit-code"; "" for none. One that only a newer engine knows is "lost": how the job ended cannot be said.
func (r Reason) Word() string {
	w := word(Reason_name, int32(r))
	if w == "" && r != Reason_REASON_UNSPECIFIED {
		return "lost"
	}
	return w
}

// StateOf returns the state that has a word; 0: none has.
func StateOf(word string) State { return State(value(State_value, "STATE_", word)) }

// ReasonOf is like StateOf.
func ReasonOf(word string) Reason { return Reason(value(Reason_value, "REASON_", word)) }

// StatusOf is like StateOf.
func StatusOf(word string) Status { return Status(value(Status_value, "STATUS_", word)) }

// Ended reports whether nothing of a job is left.
func (j *Job) Ended() bool { return j.GetState() == State_STATE_ENDED }

// Succeeded reports whether a job has ended with success: nothing is the reason of a failure.
func (j *Job) Succeeded() bool { return j.Ended() && j.GetReason() == Reason_REASON_UNSPECIFIED }
