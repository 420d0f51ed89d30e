// Prints the key of every committed record of a topic, one a line: node read.js BOOTSTRAP TOPIC RECORDS
const { Kafka, logLevel } = require('kafkajs')

const [bootstrap, topic, records] = process.argv.slice(2)
const kafka = new Kafka({ clientId: 'subscriber', brokers: [bootstrap], logLevel: logLevel.ERROR })
// read_committed is kafkajs's default; said here, because everything else is wrong.
const consumer = kafka.consumer({ groupId: `subscriber-${process.pid}`, readUncommitted: false })

async function main () {
  let left = Number(records)
  consumer.on(consumer.events.CRASH, event => {
    console.error(event.payload.error.message)
    process.exit(1)
  })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    eachMessage: async ({ message }) => {
      console.log(message.key.toString())
      left -= 1
      if (left === 0) setTimeout(() => process.exit(0), 500) // nothing more may come
    }
  })
}

main().catch(error => {
  console.error(error.message)
  process.exit(1)
})
