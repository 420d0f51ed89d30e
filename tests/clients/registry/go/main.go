// The scenario of tests/integration/platform/test_registry_clients.py with Confluent's client for Go.
package main

import (
	"encoding/json"
	"errors"
	"log"
	"os"

	"github.com/confluentinc/confluent-kafka-go/v2/schemaregistry"
	"github.com/confluentinc/confluent-kafka-go/v2/schemaregistry/rest"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func refused[T any](_ T, err error) any {
	if err == nil {
		return 0
	}
	var known *rest.Error
	if errors.As(err, &known) {
		return known.Code
	}
	return err.Error()
}

func main() {
	var given struct{ URL, Subject, Schema, Newer, Millis string }
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		log.Fatal(err)
	}
	client := must(schemaregistry.NewClient(schemaregistry.NewConfig(given.URL)))
	avro := func(schema string) schemaregistry.SchemaInfo {
		return schemaregistry.SchemaInfo{Schema: schema, SchemaType: "AVRO"}
	}
	latest := must(client.GetLatestSchemaMetadata(given.Subject))
	level := must(client.GetDefaultCompatibility())
	found := map[string]any{
		"subjects":        must(client.GetAllSubjects()),
		"versions":        must(client.GetAllVersions(given.Subject)),
		"latest":          []int{latest.Version, latest.ID},
		"by_id":           json.RawMessage(must(client.GetBySubjectAndID(given.Subject, latest.ID)).Schema),
		"looked_up":       must(client.GetID(given.Subject, avro(given.Schema), false)),
		"registered":      must(client.Register(given.Subject, avro(given.Schema), false)),
		"level":           level.String(),
		"newer_fits":      must(client.TestSubjectCompatibility(given.Subject, avro(given.Newer))),
		"millis_fit":      must(client.TestSubjectCompatibility(given.Subject, avro(given.Millis))),
		"unknown_subject": refused(client.GetAllVersions("nosuch-value")),
		"unknown_version": refused(client.GetSchemaMetadata(given.Subject, 77)),
		"unknown_id":      refused(client.GetBySubjectAndID(given.Subject, 12345)),
		"unknown_schema":  refused(client.GetID(given.Subject, avro(given.Newer), false)),
		"no_schema":       refused(client.Register(given.Subject, avro("{"), false)),
		"newer":           refused(client.Register(given.Subject, avro(given.Newer), false)),
		"millis":          refused(client.Register(given.Subject, avro(given.Millis), false)),
		"deleted":         refused(client.DeleteSubject(given.Subject, false)),
		"level_changed":   refused(client.UpdateDefaultCompatibility(schemaregistry.None)),
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		log.Fatal(err)
	}
}
