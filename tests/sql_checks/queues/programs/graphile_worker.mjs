// One program for all that a test does with graphile-worker: URL setup | send TASK COUNT | work.
import { createRequire } from 'node:module'
const load = createRequire(process.env.QUEUE_MODULES + '/')
const { run, makeWorkerUtils } = load('graphile-worker')
const [, , connectionString, doing, task, count] = process.argv
const shared = { connectionString, schema: process.env.QUEUE_SCHEMA ?? 'graphile_worker' }
if (doing === 'work') {
  await run({
    ...shared,
    concurrency: 5,
    noHandleSignals: true,
    taskList: {
      mail: async () => {},
      bad: async () => { throw new Error('it always fails') },
      slow: async () => new Promise(done => setTimeout(done, 60000)),
    },
  })
  console.log('ready')
  await new Promise(() => {})
}
const utils = await makeWorkerUtils(shared)
await utils.migrate()
if (doing === 'send') {
  const [name, attempts] = task.split('/')
  const options = attempts ? { maxAttempts: Number(attempts) } : {}
  for (let n = 0; n < Number(count); n++) await utils.addJob(name, {}, { ...options, jobKey: undefined })
}
await utils.release()
process.exit()
