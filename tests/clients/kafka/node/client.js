// Sends usage, and reads what the ledger booked of it: node client.js BOOTSTRAP REGISTRY NAMESPACE RUN COUNT
const avro = require('avsc')
const { Kafka, Partitioners, CompressionTypes, logLevel } = require('kafkajs')

const [bootstrap, registry, namespace, run, count] = process.argv.slice(2)
const kafka = new Kafka({ clientId: 'client', brokers: [bootstrap], logLevel: logLevel.ERROR })

async function ask (path) {
  const answer = await fetch(registry + path)
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`)
  return answer.json()
}

// Amounts have 64 bits, and a number of JavaScript has 53: without BigInt, 9007199254740993 would become …992.
const long = avro.types.LongType.__with({
  fromBuffer: buffer => buffer.readBigInt64LE(),
  toBuffer: value => { const buffer = Buffer.alloc(8); buffer.writeBigInt64LE(value); return buffer },
  fromJSON: BigInt,
  toJSON: String,
  isValid: value => typeof value === 'bigint',
  compare: (a, b) => a === b ? 0 : a < b ? -1 : 1
})
const typeHook = schema => schema.type === 'long' ? long : undefined
const typeOf = schema => avro.Type.forSchema(JSON.parse(schema), { typeHook, wrapUnions: 'always' })

async function send () {
  // Framing: byte 0, the schema's id in 4 bytes, the Avro body. The subject is the topic's name and "-value".
  const topic = namespace + 'credits.usage.v1'
  const { id, schema } = await ask(`/subjects/${topic}-value/versions/latest`)
  const type = typeOf(schema)
  const head = Buffer.alloc(5)
  head.writeUInt32BE(id, 1)
  const messages = []
  for (let number = 0; number < Number(count); number++) {
    const org = `org-${number % 12}`
    const record = {
      event_id: `${run}-${number}`,
      org_id: org,
      occurred_at: BigInt(Date.now()) * 1000n,
      operation: 'chat.completion',
      wallet: { string: 'USD' },
      cost_nanos: { long: 9007199254740993n }
    }
    messages.push({ key: org, value: Buffer.concat([head, type.toBuffer(record)]) })
  }
  // kafkajs's default partitioner is murmur2, as Java's. Of the codecs it brings gzip.
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, idempotent: true })
  await producer.connect()
  await producer.send({ topic, acks: -1, compression: CompressionTypes.GZIP, messages })
  await producer.disconnect()
}

async function read () {
  // The ledger topic is written with LZ4, which kafkajs reads with a plug-in only: balances, alerts, decisions, top-up
  // requests and dead letters are stored without compression. This reads balances.
  const consumer = kafka.consumer({ groupId: `${namespace}credits-follower-${run}`, readUncommitted: false })
  const types = new Map()
  const latest = new Map()
  await consumer.connect()
  await consumer.subscribe({ topic: namespace + 'credits.balances.v1', fromBeginning: true })
  await consumer.run({
    eachMessage: async ({ message }) => {
      const id = message.value.readUInt32BE(1)
      if (!types.has(id)) types.set(id, typeOf((await ask(`/schemas/ids/${id}`)).schema))
      const balance = types.get(id).fromBuffer(message.value.subarray(5))
      for (const wallet of balance.wallets) latest.set(balance.org_id, wallet.settled_nanos)
      const sum = [...latest.values()].reduce((a, b) => a + b, 0n)
      if (sum === -9007199254740993n * BigInt(count)) {
        for (const [org, nanos] of latest) console.log(JSON.stringify({ org_id: org, settled_nanos: String(nanos) }))
        process.exit(0)
      }
    }
  })
}

send().then(read).catch(error => {
  console.error(error)
  process.exit(1)
})
