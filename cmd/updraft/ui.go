package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// ui is where a command's words go: results to out, as text or as one JSON value,
// progress and remarks to err.
type ui struct {
	in       io.Reader
	out, err io.Writer
	tty      bool // err is a terminal: bars may be drawn
	json     bool
	quiet    bool
	level    string
	command  string // that ran, such as "updraft delta apply"
	printed  bool   // a result was printed
	typed    string // passphrase typed last

	mu   sync.Mutex // guards bars, and lines written to err by progress
	bars *mpb.Progress
}

// terminal reports whether w is a terminal that understands control codes and has
// room for bars; some, as of build services, have a size of 0.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" || os.Getenv("TERM") == "" || !term.IsTerminal(int(f.Fd())) {
		return false
	}
	width, height, err := term.GetSize(int(f.Fd()))
	return err == nil && width >= 40 && height >= 4
}

// result prints v as JSON, or what human writes.
func (u *ui) result(v any, human func(w io.Writer)) error {
	u.finish()
	u.printed = true
	if !u.json {
		w := &noting{w: plainWriter{u.out}}
		human(w)
		return w.err
	}
	e := json.NewEncoder(u.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// noting is a writer that remembers what went wrong, for those who write to it and do not look.
type noting struct {
	w   io.Writer
	err error
}

func (n *noting) Write(b []byte) (int, error) {
	if n.err != nil {
		return 0, n.err
	}
	k, err := n.w.Write(b)
	n.err = err
	return k, err
}

// note prints a remark for a person.
func (u *ui) note(format string, args ...any) {
	if u.json || u.quiet {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	fmt.Fprintf(plainWriter{u.err}, format+"\n", args...)
}

// log returns a logger to err of the chosen level.
func (u *ui) log() *slog.Logger {
	l := slog.LevelInfo
	if err := l.UnmarshalText([]byte(u.level)); err != nil {
		l = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(u.err, &slog.HandlerOptions{Level: l, ReplaceAttr: logTime}))
}

// logTime leaves the time out where the journal adds it.
func logTime(groups []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey && len(groups) == 0 && os.Getenv("JOURNAL_STREAM") != "" {
		return slog.Attr{}
	}
	return a
}

// finish waits until all bars are drawn for the last time.
func (u *ui) finish() {
	u.mu.Lock()
	bars := u.bars
	u.bars = nil
	u.mu.Unlock()
	if bars != nil {
		bars.Wait()
	}
}

// plainEvery is the time between two lines of progress where no bars are drawn.
const plainEvery = 2 * time.Second

// meter shows how far one thing has come: a bar on a terminal, else a line now and
// then. It is safe for concurrent use.
type meter struct {
	u    *ui
	name string
	rate bool // what is counted are bytes over time

	mu    sync.Mutex // guards all below
	bar   *mpb.Bar
	text  string
	last  time.Time
	start time.Time
	done  int64
	total int64
	ended bool
}

// meter starts a meter of bytes.
func (u *ui) meter(name string) *meter {
	m := &meter{u: u, name: name, rate: true, start: time.Now(), last: time.Now()}
	if u.json || u.quiet || !u.tty {
		return m
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bars == nil {
		u.bars = mpb.New(mpb.WithOutput(u.err), mpb.WithWidth(40), mpb.WithRefreshRate(120*time.Millisecond), mpb.WithAutoRefresh())
	}
	m.bar = u.bars.AddBar(0,
		mpb.PrependDecorators(decor.Name(name, decor.WC{W: 14, C: decor.DindentRight}),
			decor.Any(func(s decor.Statistics) string { return fmt.Sprintf("%8s ", size(s.Current)) })),
		mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5}),
			decor.Any(func(decor.Statistics) string { return "  " + m.label() })))
	return m
}

func (m *meter) label() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text
}

// set shows done of total and a short text beside it.
func (m *meter) set(done, total int64, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return
	}
	m.done, m.total, m.text = done, total, text
	if m.rate && text == "" {
		m.text = speed(done, time.Since(m.start))
	}
	if m.bar != nil {
		m.bar.SetTotal(total, false)
		m.bar.SetCurrent(done)
		return
	}
	if now := time.Now(); now.Sub(m.last) >= plainEvery {
		m.last = now
		m.lineLocked()
	}
}

func (m *meter) lineLocked() {
	if m.total > 0 {
		m.u.note("%s: %d %% of %s %s", m.name, 100*m.done/m.total, size(m.total), m.text)
	}
}

// end closes the meter with a last text; the bar stays as it is.
func (m *meter) end(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return
	}
	m.ended = true
	if text != "" {
		m.text = text
	}
	if m.bar == nil {
		return
	}
	if m.total > 0 && m.done >= m.total {
		m.bar.SetTotal(m.total, true)
		return
	}
	m.bar.Abort(false)
}

// table writes rows in columns; the first row is the head.
func table(w io.Writer, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, strings.TrimRight(strings.Join(r, "\t"), "\t "))
	}
	_ = t.Flush() // as with all text: a reader who has gone misses nothing
}

// size prints bytes for a person.
func size(n int64) string {
	switch {
	case n < 0:
		return "-" + size(-n)
	case n < 10_000:
		return fmt.Sprintf("%d B", n)
	case n < 10_000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 10_000_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}

func speed(n int64, d time.Duration) string {
	if d < 50*time.Millisecond {
		return ""
	}
	return size(int64(float64(n)/d.Seconds())) + "/s"
}

// ago prints a time for a person.
func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%.1f h ago", d.Hours())
	}
	return t.Format(time.DateOnly)
}

// quietLog returns a logger for a command that is no daemon: warnings, unless a
// level was asked for, and nothing with --quiet.
func (u *ui) quietLog() *slog.Logger {
	if u.quiet {
		return slog.New(slog.DiscardHandler)
	}
	l := slog.LevelError
	if u.level != "info" {
		_ = l.UnmarshalText([]byte(u.level)) // checked before any command runs
	}
	return slog.New(slog.NewTextHandler(u.err, &slog.HandlerOptions{Level: l}))
}
