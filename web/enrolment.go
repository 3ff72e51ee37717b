package web

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"bramble/web/api"
)

type approveInput struct {
	Word string `path:"word" maxLength:"64" doc:"Name, serial number or MAC address of a board"`
	Body struct {
		Code string `json:"code" maxLength:"32" doc:"The code that the board's console shows" example:"4K7Q-2MXD"`
	}
}

type windowInput struct {
	Body struct {
		Seconds int64 `json:"seconds" minimum:"0" maximum:"604800" doc:"For how long unknown boards may join; 0 closes the window"`
	}
}

func (s *Server) routeEnrolment(a huma.API) {
	huma.Register(a, get("output", "/nodes/{word}/output", "Output of a board's agent", "The end of what each step of the present boot printed."), s.apiOutput)
	huma.Register(a, get("enrolment", "/enrolment", "Enrolment", "Who may join, and by what the appliance is known."), s.apiEnrolment)
	huma.Register(a, change("approve", "/nodes/{word}/approve", "Approve a board", "Lets a board join that waits, if the code is the one that it shows."), s.apiApprove)
	huma.Register(a, change("window", "/enrolment/window", "Open the window", "Lets unknown boards join for a time."), s.apiWindow)
}

func change(id, path, summary, description string) huma.Operation {
	op := get(id, path, summary, description)
	op.Method, op.DefaultStatus, op.Security = "POST", 204, []map[string][]string{{"token": {}}}
	return op
}

func (s *Server) apiEnrolment(context.Context, *struct{}) (*body[api.Enrolment], error) {
	if s.Enrolment == nil || s.Authority == nil {
		return nil, huma.Error404NotFound("Enrolment is switched off on this appliance.")
	}
	policy, until := s.Enrolment.Status()
	return &body[api.Enrolment]{api.Enrolment{Policy: policy, Until: until, Pin: s.Authority.Pin(), KnownHosts: s.Authority.KnownHostsLine("*")}}, nil
}

func (s *Server) apiApprove(_ context.Context, in *approveInput) (*struct{}, error) {
	state, err := s.find(in.Word)
	if err != nil {
		return nil, err
	}
	return nil, s.enrolling(func(e Enrolment) error { return e.Approve(state.MAC, in.Body.Code) })
}

func (s *Server) apiWindow(_ context.Context, in *windowInput) (*struct{}, error) {
	return nil, s.enrolling(func(e Enrolment) error { return e.OpenWindow(time.Duration(in.Body.Seconds) * time.Second) })
}

func (s *Server) enrolling(do func(Enrolment) error) error {
	if s.Enrolment == nil {
		return huma.Error404NotFound("Enrolment is switched off on this appliance.")
	}
	if err := do(s.Enrolment); err != nil {
		return huma.Error409Conflict(err.Error())
	}
	return nil
}
