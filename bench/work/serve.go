package work

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A Request is a line of JSON for the program that measures: an operation of the
// program's own, or, with Op empty, a job.
type Request struct {
	Op  string `json:",omitempty"`
	Arg string `json:",omitempty"`
	// Option is the variant of a side.
	Option string `json:",omitempty"`
	Job    Job
}

// An Answer is the line that answers a Request.
type Answer struct {
	Error  string `json:",omitempty"`
	Result Result
}

// maxLine bounds a request's line.
const maxLine = 64 << 10

// Serve answers requests until r ends. do does what isn't a job.
func Serve(r io.Reader, w io.Writer, do func(Request) (Result, error)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var req Request
		var a Answer
		err := json.Unmarshal(lines.Bytes(), &req)
		switch {
		case err != nil:
		case req.Op == "":
			a.Result, err = Run(req.Job)
		case do == nil:
			err = fmt.Errorf("no operation %q here", req.Op)
		default:
			a.Result, err = do(req)
		}
		if err != nil {
			a.Error = err.Error()
		}
		b, err := json.Marshal(a)
		if err != nil {
			return err
		}
		if _, err := w.Write(append(b, '\n')); err != nil {
			return err
		}
	}
	return lines.Err()
}

// A Client asks a program that serves.
type Client struct {
	w io.Writer
	r *bufio.Reader
}

// NewClient returns a client; one request at a time.
func NewClient(r io.Reader, w io.Writer) *Client { return &Client{w: w, r: bufio.NewReader(r)} }

// Do makes a request and waits for the answer.
func (c *Client) Do(req Request) (Result, error) {
	b, err := json.Marshal(req)
	if err != nil {
		return Result{}, err
	}
	if _, err := c.w.Write(append(b, '\n')); err != nil {
		return Result{}, fmt.Errorf("asking the guest: %w", err)
	}
	line, err := c.r.ReadBytes('\n')
	if err != nil {
		return Result{}, fmt.Errorf("the guest does not answer: %w", err)
	}
	var a Answer
	if err := json.Unmarshal(line, &a); err != nil {
		return Result{}, fmt.Errorf("the guest's answer %.200q: %w", line, err)
	}
	if a.Error != "" {
		return a.Result, errors.New(a.Error)
	}
	return a.Result, nil
}
