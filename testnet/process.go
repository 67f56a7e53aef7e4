package testnet

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a process may take to end after SIGTERM.
const stopGrace = 3 * time.Second

// ticksPerSecond is the unit of CPU times in /proc, the same on all Linux systems.
const ticksPerSecond = 100

// usage is what a process has used up to now.
type usage struct {
	cpu     float64 // seconds
	peakRSS int64   // bytes
	written int64   // bytes that reached the page cache to be written
}

// process is a child of this one, with its output in a log file.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended

	mu   sync.Mutex // guards all below
	err  error      // how it ended
	last usage
}

// start runs cmd with its output appended to the file log. The process is killed
// when this one dies.
func start(cmd *exec.Cmd, log string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("testnet: %w", err)
	}
	defer f.Close() //nolint:errcheck // the child has its own descriptor
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("testnet: start %s: %w", cmd.Path, err)
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go p.wait()
	return p, nil
}

func (p *process) wait() {
	err := p.cmd.Wait()
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
	close(p.done)
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// result says how the process ended, with the end of its log when that was bad.
func (p *process) result() error {
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		return nil
	}
	return fmt.Errorf("testnet: %s: %w: %s", strings.Join(p.cmd.Args, " "), p.err, tail(p.log))
}

// kill ends the process and all it started, as a power cut would.
func (p *process) kill() {
	if !p.ended() {
		p.usage()
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may just have ended
	}
	<-p.done
}

// stop asks the process to end, and kills it when it does not.
func (p *process) stop() {
	if p.ended() {
		return
	}
	p.usage()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
	select {
	case <-p.done:
	case <-time.After(stopGrace):
		p.kill()
	}
}

// usage reads what the process has used; after its end, what was read last.
func (p *process) usage() usage {
	pid := p.cmd.Process.Pid
	p.mu.Lock()
	defer p.mu.Unlock()
	u, err := readUsage(pid)
	if err == nil && u.peakRSS > 0 {
		p.last = u
	}
	return p.last
}

func readUsage(pid int) (usage, error) {
	var u usage
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return u, err
	}
	// The name in parentheses may hold anything; fields 14 and 15 are the times.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) > 12 {
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		u.cpu = float64(user+system) / ticksPerSecond
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return u, err
	}
	u.peakRSS = field(status, "VmHWM:") << 10
	// Only the owner may read io; a figure that cannot be had is 0.
	if io, err := os.ReadFile(dir + "/io"); err == nil {
		u.written = field(io, "write_bytes:")
	}
	return u, nil
}

// field returns the number behind a key at the start of a line.
func field(b []byte, key string) int64 {
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				n, _ := strconv.ParseInt(f[0], 10, 64)
				return n
			}
		}
	}
	return 0
}

// tailSize is how much of a log stands in an error.
const tailSize = 1500

func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // read only
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	b, err := io.ReadAll(io.NewSectionReader(f, max(0, st.Size()-tailSize), tailSize))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
