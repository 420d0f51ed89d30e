// The scenario of tests/integration/platform/test_registry_clients.py with Confluent's client for JavaScript.
const fs = require('fs');
const { SchemaRegistryClient } = require('@confluentinc/schemaregistry');

async function main() {
  const given = JSON.parse(fs.readFileSync(0, 'utf8'));
  const client = new SchemaRegistryClient({ baseURLs: [given.url], maxRetries: 0 });
  const avro = (schema) => ({ schema, schemaType: 'AVRO' });
  const refused = async (call) => {
    try {
      await call();
      return 0;
    } catch (error) {
      return error.errorCode ?? String(error);
    }
  };
  const latest = await client.getLatestSchemaMetadata(given.subject);
  console.log(JSON.stringify({
    subjects: await client.getAllSubjects(),
    versions: await client.getAllVersions(given.subject),
    latest: [latest.version, latest.id],
    by_id: JSON.parse((await client.getBySubjectAndId(given.subject, latest.id)).schema),
    looked_up: await client.getId(given.subject, avro(given.schema)),
    registered: await client.register(given.subject, avro(given.schema)),
    level: await client.getDefaultCompatibility(),
    newer_fits: await client.testSubjectCompatibility(given.subject, avro(given.newer)),
    millis_fit: await client.testSubjectCompatibility(given.subject, avro(given.millis)),
    unknown_subject: await refused(() => client.getAllVersions('nosuch-value')),
    unknown_version: await refused(() => client.getSchemaMetadata(given.subject, 77)),
    unknown_id: await refused(() => client.getBySubjectAndId(given.subject, 12345)),
    unknown_schema: await refused(() => client.getId(given.subject, avro(given.newer))),
    no_schema: await refused(() => client.register(given.subject, avro('{'))),
    newer: await refused(() => client.register(given.subject, avro(given.newer))),
    millis: await refused(() => client.register(given.subject, avro(given.millis))),
    deleted: await refused(() => client.deleteSubject(given.subject)),
    level_changed: await refused(() => client.updateDefaultCompatibility('NONE')),
  }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
