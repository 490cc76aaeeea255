package spec

// Current is what a job uses while it runs. A nil field is not known here.
type Current struct {
	// CPUUsec is processor time in microseconds.
	CPUUsec *uint64
	// Memory is memory.current in bytes.
	Memory *uint64
	// Tasks is pids.current, processes and threads.
	Tasks *uint64
	// Processes are the first of its processes by their numbers, at most MaxProcesses.
	Processes []Process
}

// MaxProcesses is how many processes Current has at most.
const MaxProcesses = 100

// Process is a process of a job.
type Process struct {
	PID int
	// Name is /proc/PID/comm (proc(5)), which the process may have chosen itself; "" if it has ended meanwhile.
	Name string
}
