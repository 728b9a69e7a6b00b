'use strict';
// The numbers (SN) that the official SDK gives to certificates.
//
// in:  { privateKey, certificates }   see alipay.js
// out: { app, alipay, root }

const { sdk } = require('./alipay');
const { request, answer } = require('./io');

const { config } = sdk(request);
answer({ app: config.appCertSn, alipay: config.alipayCertSn, root: config.alipayRootCertSn });
