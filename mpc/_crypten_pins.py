"""SHA-256 of the source of everything in CrypTen 0.4.1 that `mpc.engine` replaces, as inspect.getsource returns it."""

_BY_MODULE = {
    "crypten.common.functions.approximations": {
        "erf": "8db861e259edcacb4d5a7584b0a74796e5a58f23f41c44287e4c751049cbbe8c",
    },
    "crypten.common.functions.logic": {
        "eq": "82082cf7143646b044eadfa7e7f2bf67c2dc92092c3076c9bd18d6240d1b09cb",
        "ne": "8b2c8af74ef70671dbf14cb46e0c8fc9e4b454bfcb16645aa064bfc8d0d611bc",
    },
    "crypten.common.functions.power": {
        "pow": "d1a2340cd4813df53983cd737bf182dc4583395dc319713ff68756e2516ef085",
    },
    "crypten.common.functions.regular": {
        "var": "4c1d2ef7adca3c1b07aaa642537b9ae16a0ae7494b45b725392ea6b4aac3b480",
    },
    "crypten.common.rng": {
        "generate_kbit_random_tensor": "567f9ad75ef23c44cf363b95f5cc8bdeded50cd8fc248b724e86346e3ad9452a",
        "generate_random_ring_element": "0abbd5096ca9c8084cd65afc40a2ab679fec78b5dc977864c8f0cc1e6a0291fe",
    },
    "crypten.common.serial": {
        "_safe_legacy_load": "8e1af8491c5068bee4d8779215906d4dfd06a5560f4743de921bd0f77dc07ae6",
        "restricted_loads": "ebf8769d2b4c37d465ce9649844e34aef7b9c1a998f04e7fd082203d91658e22",
    },
    "crypten.communicator": {
        "DistributedCommunicator": "526c6716621971b8d39d04b86d764c5f9ad177faf0e20a2fa7cdb51e0c53500e",
        "InProcessCommunicator": "dfc9e98264cac5d00322ff99406e22bb1e5dc9233d3c841424962013575ef448",
        "_init": "471ec0c1d2e816d624b1f3544e33b981be170eeb186a05df559ac37f34627fe0",
        "get": "1367881a48f78ea239cac0aefa61dc489624afbc3061b2f48a9fba94ac27c5a0",
        "is_initialized": "56cde1cc95aa7a955e66c66bfcabd4a21ba805af1af884a14046b3070d0f8442",
        "uninit": "c11a8a92793940ae746d1e1a2b18c3a8c90784e0a6d8ad1d2f0ac4fe07157473",
    },
    "crypten.debug.debug": {
        "validate_correctness": "cc754da740cd1d29c4654efc27a78ff6007ad24c0bd82229194894d8f295b1d5",
    },
    "crypten.encoder": {
        "FixedPointEncoder.decode": "fa06f0447f229ff64564744bca76535debbf7aeb5ce86306afbea384ff6ffd4c",
        "FixedPointEncoder.encode": "5dde45abd57964d9d9b6f9ceb961ac02efe1f82f7efd139bf654486715305c3e",
    },
    "crypten.gradients": {
        "AutogradDropout.forward": "ac846e1125864f37d98c8ca8a4927a3ba4e41b2734abdce218e955fb8001f37d",
        "AutogradFeatureDropout.forward": "8eea76c3edda4d9e046670f5beeb637f62ca86ec0758b7cca1b0fe222bc743ee",
    },
    "crypten.mpc.context": {
        "run_multiprocess": "295e56275438dff6711568d41d50cf67d7a461c0eed434b3df50f79ab6d9df95",
    },
    "crypten.mpc.mpc": {
        "MPCTensor.__repr__": "44d65fbddedec1d7e5c113ff884a6d8acc533019aa52a67ef26e6b8cf0a039a2",
        "MPCTensor._eqz_2PC": "9997fa88ed98d22fa0ab9b34ac4ca424853cd3676b91f8c37f080bc1356c324f",
        "MPCTensor._ltz": "428e4584c122b85c4a381888dec782700ac0ac0466e75fcd22cdef93316612db",
        "MPCTensor.eq": "4bc0f28211338209adf62f29d56f76d2c93d6e7f7d0d8503ec13f9a3fdacbf3c",
        "MPCTensor.ne": "0781dd5243f79e87b257c8ac8ad0257de604d5c43212e40b54921b01208886c1",
    },
    "crypten.mpc.primitives.arithmetic": {
        "ArithmeticSharedTensor.__init__": "528265739012a98620caff33a7e977347ea96138adb25b97a84177cfa62c462e",
        "ArithmeticSharedTensor.__repr__": "7ace0b2c8d98bfe2969e6b89e27dcdab777e801ba012f82ff63e1fe346bda636",
        "ArithmeticSharedTensor._arithmetic_function": "752cecabce00121d7dc1f96fa71b03d2a65b6fbb4bbb53ce01b98ff71a3ba37f",
        "ArithmeticSharedTensor.div_": "dbf750b5d6e173ef1e9067744cb50f3383424b12580774bcf324b69da9baecfa",
        "ArithmeticSharedTensor.square_": "17b7c30e815d832b9f98900a8508ceafe3e1ec98af622e21afc7dace9b7da90a",
    },
    "crypten.mpc.primitives.beaver": {
        "__beaver_protocol": "ad64a467982a2356e01dc982cdb66e5a982a7ef9b495a0fcb3f23ed18e52dc5c",
        "square": "9c1826d37d654ba64a04a35ab52e766012b465498b70161010a26a25301c8f1c",
        "truncate": "6cda8b4ddeb7e61bb8616cc02e85ee591e8f8bd9a83c3ab21cddfcf32192bd68",
        "wraps": "7a3790f114fe47197de1730fdab65fafc348855fc305d95a8d958747d435a6ac",
    },
    "crypten.mpc.primitives.binary": {
        "BinarySharedTensor.__repr__": "a39fa8b1909b5422e0026d54927e8c29d73492fa7e1c95c9503b3b3a1eadf82e",
    },
    "crypten.mpc.primitives.converters": {
        "_A2B": "476eb2205f241b03583bacf0393d6ae060c3faaaa19c158d6251d05a34fd47f5",
    },
    "crypten.mpc.primitives.replicated": {
        "__replicated_secret_sharing_protocol": "27f8c5c67d8848eae6d1f54ce9aae65caead68e5276a90f70304784e45abedb4",
        "square": "3ef206db648eaee93fefd28ae87c2dfdbd7d20dc60ae570e36e872913ce322df",
        "truncate": "925650a6d688fb261c0aa7301656b080f147b5ae49c9b83f208025e72583ec9b",
    },
    "crypten.mpc.provider.provider": {
        "TupleProvider.__init__": "aaadc44395139df780161cabf777f95174010ca1b6d047d2fbb09996fe6da2eb",
    },
    "crypten.mpc.provider.ttp_provider": {
        "TTPClient._init": "bacbba7b87b034c6ad2bb7928cc1574e7a3b5fcc50ef2e07587bb99c990280ef",
        "TTPServer.__init__": "340ff385e2a8e9b28001a54f8609c65c7cd7081277526de81e52f7c58074ac41",
    },
    "crypten.nn.privacy.dp_split": {
        "DPSplitModel.__init__": "f6726d76ef5fb5f04931be76185c5e767a345e1510d870babda1620140b19dc2",
    },
    "crypten": {
        "_setup_prng": "7157f9d8885afb1dde7857700da36fc503445de6a42ff15cef11799404cfec1a",
        "_sync_seeds": "14c254f5681c3d0821d37b653d817b3b4744b56b673ee4a5c47794d421ca5c85",
        "fill_cache": "8a2aac78ea2cd3be1e7540cfd81a02943aed09313a1ff1b074b84abbc90cb878",
        "init": "13e94c20c3548b08512808ac0b88063f698d1822eddc5fda610a827c389af897",
        "init_thread": "215050523ec71264ea2535855c18353a1f14823126cbac09b8443aef014c7623",
        "load": "6fdd3ca8d9b618c38b085a425ce695f1d46a62b6cf37c88435722a6871f7260e",
        "load_from_party": "468941e200e1a9fe1540d27f79cda4c3b4b689da292f1e85209347a449d6112b",
        "manual_seed": "b086d148dd25a51061238b6128a2146127aa0ec92565bd33bc4d05dec10cfb09",
        "save": "2d381bc7ba362556dbda8f6a6e903f4a900c2c6df217ba98788fbc8a01f8b1c2",
        "save_from_party": "0bbf037a8ddac2bbf41194ec3ecd32149e6b6bc5c9ff111b71da25e8121e86f0",
        "trace": "49cfeb8d7e48ece46e542f1fa8e8b7097d1451a42b6080e756fd713ed7a9d6a8",
        "trace_once": "6c27d8c4d2b468b74dcd28b4a0ee0b7b8dd1defa0e6e02971d06e17482e75b76",
        "uninit": "f76c3b181b3c467399dcc3822e91cd62366d6da169bf05eb5cd7dee7e3cc5dc2",
    },
}

PINS: dict[str, str] = {f"{module}:{name}": pin for module, pins in _BY_MODULE.items() for name, pin in pins.items()}
