// Package report is what a device says about itself: the status that people and
// programs read, the list of present problems, and the control socket over which
// both are asked for.
//
// The control socket is DIR/control.sock, a Unix socket that only its owner may
// use. It speaks HTTP:
//
//	GET  /status   Status
//	GET  /peers    list of Peer
//	POST /check    looks for a release now; CheckResult when that is done
//	GET  /plan     Plan for the channel's newest release
//	POST /retry    forgets which releases were refused, so that they are tried again
//	GET  /metrics  Prometheus text
//
// Answers are JSON, errors a Failure with a status of 4xx or 5xx.
package report
