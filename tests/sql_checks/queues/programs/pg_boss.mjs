// One program for all that a test does with pg-boss: URL setup | send TASK COUNT | work.
import { createRequire } from 'node:module'
const load = createRequire(process.env.QUEUE_MODULES + '/')
const loaded = load('pg-boss')
const PgBoss = loaded.PgBoss ?? loaded
const [, , url, doing, task, count] = process.argv
const boss = new PgBoss({ connectionString: url, schema: process.env.QUEUE_SCHEMA ?? 'pgboss' })
boss.on('error', error => console.error(error.message))
await boss.start()
const handlers = {
  mail: async () => {},
  bad: async () => { throw new Error('it always fails') },
  slow: async () => new Promise(done => setTimeout(done, 60000)),
}
if (doing === 'setup') {
  await boss.createQueue('mail-dead')
  await boss.createQueue('mail')
  await boss.createQueue('slow')
  await boss.schedule('mail', '0 0 1 1 *')
  await boss.createQueue('bad', { name: 'bad', retryLimit: 0, deadLetter: 'mail-dead' })
} else if (doing === 'send') {
  for (let n = 0; n < Number(count); n++) await boss.send(task, { company_id: `company ${n % 3}` })
} else {
  for (const [name, handler] of Object.entries(handlers)) {
    await boss.work(name, { pollingIntervalSeconds: 0.5, batchSize: 100 }, handler)
  }
  console.log('ready')
  await new Promise(() => {})
}
process.exit()
