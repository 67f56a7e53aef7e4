package main

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"updraft/node"
)

// Every field of the configuration file is in the agent's help.
func TestAgentHelpNamesEveryField(t *testing.T) {
	var out bytes.Buffer
	if code := run(t.Context(), []string{"agent", "--help"}, nil, &out, &out); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[node.Config](), reflect.TypeFor[node.HookConfig]()} {
		for i := range typ.NumField() {
			key := typ.Field(i).Tag.Get("yaml")
			if key != "-" && !strings.Contains(out.String(), " "+key+":") {
				t.Errorf("no word on %q", key)
			}
		}
	}
}
