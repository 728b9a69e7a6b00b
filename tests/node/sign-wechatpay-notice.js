'use strict';
// Signs and encrypts a WeChat Pay callback as the platform would, with wechatpay-axios-plugin.
//
// in:  { privateKey, serial, apiv3Key, id, eventType, originalType, resource, timestamp }
// out: { headers, body }

const { Aes: { AesGcm }, Rsa, Formatter } = require('wechatpay-axios-plugin');
const { request, answer } = require('./io');

const resourceNonce = Formatter.nonce(12);
const ciphertext = AesGcm.encrypt(
  JSON.stringify(request.resource), request.apiv3Key, resourceNonce, request.originalType,
);
const body = JSON.stringify({
  id: request.id,
  create_time: '2026-01-01T00:00:00+08:00',
  resource_type: 'encrypt-resource',
  event_type: request.eventType,
  summary: '支付成功',
  resource: {
    original_type: request.originalType,
    algorithm: 'AEAD_AES_256_GCM',
    ciphertext,
    associated_data: request.originalType,
    nonce: resourceNonce,
  },
});
const timestamp = String(request.timestamp ?? Formatter.timestamp());
const nonce = Formatter.nonce();
const signature = Rsa.sign(Formatter.response(timestamp, nonce, body), request.privateKey);

answer({
  headers: {
    'Content-Type': 'application/json',
    'Wechatpay-Serial': request.serial,
    'Wechatpay-Timestamp': timestamp,
    'Wechatpay-Nonce': nonce,
    'Wechatpay-Signature-Type': 'WECHATPAY2-SHA256-RSA2048',
    'Wechatpay-Signature': signature,
  },
  body,
});
