// The queues of the shop. A job that fails for good is copied to `parked`, where people look at it.

export const FULFIL = "order.fulfil";
export const MAIL = "mail.send";
export const PARKED = "parked";

export async function createQueues(boss) {
  await boss.createQueue(PARKED);
  await boss.createQueue(FULFIL, { retryLimit: 3, retryDelay: 1, retryBackoff: true, expireInSeconds: 60, deadLetter: PARKED });
  await boss.createQueue(MAIL, { retryLimit: 5, retryDelay: 2, retryBackoff: true, expireInSeconds: 60, deadLetter: PARKED });
}
