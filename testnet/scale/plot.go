package scale

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// Table writes points as a table of Markdown.
func Table(w io.Writer, points []Point) error {
	var b strings.Builder
	b.WriteString("| devices | members of each | tail, s | uplink ÷ release | received ÷ release | busiest sent ÷ release | duplicates | asked for | messages per device | control bytes per device | memory per device |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, p := range points {
		fmt.Fprintf(&b, "| %d | %.0f | %.2f | %.3f | %.3f | %.1f | %.3f | %.2f | %.0f | %.0f kB | %.1f MB |\n", p.Devices, p.Members, p.TailS, p.UplinkRatio,
			p.Received, p.Busiest, p.Duplicates, p.Pulled, p.Messages, p.Control/1e3, p.Memory/1e6)
	}
	_, err := io.WriteString(w, b.String())
	if err != nil {
		return fmt.Errorf("scale: %w", err)
	}
	return nil
}

// chart is one of the drawings of SVG.
type chart struct {
	title string
	value func(Point) float64
	from  float64 // the least upper end of the axis
}

var charts = []chart{
	{"tail: last byte over the uplink to the last device, seconds", func(p Point) float64 { return p.TailS }, 1},
	{"uplink bytes ÷ release", func(p Point) float64 { return p.UplinkRatio }, 1.2},
	{"messages received per device", func(p Point) float64 { return p.Messages }, 100},
	{"memory per device, MB", func(p Point) float64 { return p.Memory / 1e6 }, 1},
}

// Sizes of the drawing, in pixels.
const (
	plotWidth, plotHeight = 760, 190
	plotLeft, plotRight   = 60, 20
	plotTop, plotBottom   = 30, 25
)

// SVG draws how the figures grow with the number of devices, which are on a logarithmic axis.
func SVG(w io.Writer, points []Point) error {
	if len(points) == 0 {
		return fmt.Errorf("scale: nothing to draw")
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", plotWidth, plotHeight*len(charts))
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	for k, c := range charts {
		c.draw(&b, points, float64(plotHeight*k))
	}
	b.WriteString("</svg>\n")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("scale: %w", err)
	}
	return nil
}

func (c chart) draw(b *strings.Builder, points []Point, y0 float64) {
	first, last := math.Log(float64(points[0].Devices)), math.Log(float64(points[len(points)-1].Devices))
	top := c.from
	for _, p := range points {
		top = max(top, c.value(p))
	}
	top = round(top)
	x := func(p Point) float64 {
		if last == first {
			return plotLeft
		}
		return plotLeft + (math.Log(float64(p.Devices))-first)/(last-first)*(plotWidth-plotLeft-plotRight)
	}
	y := func(v float64) float64 {
		return y0 + plotHeight - plotBottom - v/top*(plotHeight-plotTop-plotBottom)
	}
	fmt.Fprintf(b, `<text x="%d" y="%.0f" font-weight="bold">%s</text>`+"\n", plotLeft, y0+18, c.title)
	for k := range 5 {
		v := top * float64(k) / 4
		fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.4g</text>`+"\n",
			plotLeft, plotWidth-plotRight, y(v), y(v), plotLeft-6, y(v)+4, v)
	}
	var line strings.Builder
	for _, p := range points {
		fmt.Fprintf(&line, "%.1f,%.1f ", x(p), y(c.value(p)))
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="#06c"/><text x="%.1f" y="%.1f" text-anchor="middle">%d</text>`+"\n",
			x(p), y(c.value(p)), x(p), y0+plotHeight-8, p.Devices)
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="#06c" stroke-width="1.5"/>`+"\n", strings.TrimSpace(line.String()))
}

// round returns a number with few digits that is at least v.
func round(v float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10} {
		if v <= f*unit {
			return f * unit
		}
	}
	return 10 * unit
}
