BEGIN TRANSACTION;
CREATE TABLE annotated_datasets (
	id VARCHAR(61) NOT NULL, 
	source VARCHAR(200) NOT NULL, 
	name VARCHAR(100) NOT NULL, 
	options JSON NOT NULL, 
	changes INTEGER NOT NULL, 
	built INTEGER NOT NULL, 
	created_at VARCHAR(40) NOT NULL, 
	updated_at VARCHAR(40) NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (source)
);
INSERT INTO "annotated_datasets" VALUES('shapes-jbb3a4i6','upload:shapes-jbb3a4i6','shapes','{"names": ["circle", "square", "triangle"], "keypoint_names": [], "task": "detect"}',1,1,'2026-11-29T15:04:10.850+00:00','2026-11-29T15:04:11.033+00:00');
CREATE TABLE annotated_images (
	id INTEGER NOT NULL, 
	content VARCHAR(64) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	width INTEGER NOT NULL, 
	height INTEGER NOT NULL, 
	created_at VARCHAR(40) NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (content)
);
CREATE TABLE annotation_entries (
	dataset_id VARCHAR(61) NOT NULL, 
	"key" VARCHAR(80) NOT NULL, 
	task VARCHAR(80) NOT NULL, 
	address TEXT NOT NULL, 
	rank INTEGER NOT NULL, 
	stamp VARCHAR(40) NOT NULL, 
	number INTEGER NOT NULL, 
	document JSON NOT NULL, 
	content VARCHAR(64), 
	suffix VARCHAR(8) NOT NULL, 
	annotations JSON, 
	error TEXT, 
	updated_at VARCHAR(40) NOT NULL, 
	PRIMARY KEY (dataset_id, "key"), 
	FOREIGN KEY(dataset_id) REFERENCES annotated_datasets (id) ON DELETE CASCADE
);
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:c287b19ca3c83f92c33548ddeb31b902ad4cf53e9e4bb1783333f6b054d2b426','','',-1,'',1,'{"by": "original", "name": "images/val/0000.jpg", "split": "val"}','c287b19ca3c83f92c33548ddeb31b902ad4cf53e9e4bb1783333f6b054d2b426','.jpg','{"image": "images/val/0000.jpg", "width": 64, "height": 64, "objects": [{"label": "circle", "box": [12.248192, 21.321216, 35.743616, 44.81664], "parts": [], "keypoints": [], "score": null, "id": ""}, {"label": "square", "box": [37.903712, 16.237664000000002, 57.323167999999995, 35.65712], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.870+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:007d5c569656b787b61165b3901cf47bd19e65b378dbabe62aba138dbfd2ce1c','','',-1,'',1,'{"by": "original", "name": "images/val/0001.jpg", "split": "val"}','007d5c569656b787b61165b3901cf47bd19e65b378dbabe62aba138dbfd2ce1c','.jpg','{"image": "images/val/0001.jpg", "width": 64, "height": 64, "objects": [{"label": "circle", "box": [31.577376, 22.068447999999997, 56.258144, 46.749216], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.871+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:94885f2f92fb38abdb1523c317926f0c52a368c79a5359a3dedad2690fcea4e9','','',-1,'',1,'{"by": "original", "name": "images/val/0002.jpg", "split": "val"}','94885f2f92fb38abdb1523c317926f0c52a368c79a5359a3dedad2690fcea4e9','.jpg','{"image": "images/val/0002.jpg", "width": 64, "height": 64, "objects": [{"label": "square", "box": [36.142815999999996, 22.612384000000002, 55.222688000000005, 41.692256], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.872+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:5c1f6709914c26e479987a3be32f4e3db38d2dc0f75bd912a8201ab4ee7c7e8f','','',-1,'',1,'{"by": "original", "name": "images/val/0003.jpg", "split": "val"}','5c1f6709914c26e479987a3be32f4e3db38d2dc0f75bd912a8201ab4ee7c7e8f','.jpg','{"image": "images/val/0003.jpg", "width": 64, "height": 64, "objects": [{"label": "square", "box": [8.911616, 14.588032, 22.62016, 28.296576], "parts": [], "keypoints": [], "score": null, "id": ""}, {"label": "triangle", "box": [25.976192, 5.169696, 42.561024, 20.535776], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.897+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:96aae828406dc0eeb4ad1d857e3a0319ed06b1b9df9d0113250aa2b0a2147203','','',-1,'',1,'{"by": "original", "name": "images/train/0000.jpg", "split": "train"}','96aae828406dc0eeb4ad1d857e3a0319ed06b1b9df9d0113250aa2b0a2147203','.jpg','{"image": "images/train/0000.jpg", "width": 64, "height": 64, "objects": [{"label": "square", "box": [22.17696, 36.762432, 37.636032, 52.221504], "parts": [], "keypoints": [], "score": null, "id": ""}, {"label": "square", "box": [30.004032000000002, 10.983552, 47.843904, 28.823424], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.898+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:625ba729b1e234784195d00636347faa1503007f027a42bd982e7cc7f04c55ad','','',-1,'',1,'{"by": "original", "name": "images/train/0001.jpg", "split": "train"}','625ba729b1e234784195d00636347faa1503007f027a42bd982e7cc7f04c55ad','.jpg','{"image": "images/train/0001.jpg", "width": 64, "height": 64, "objects": [{"label": "triangle", "box": [7.413920000000001, 12.878463999999997, 25.432672, 28.678144], "parts": [], "keypoints": [], "score": null, "id": ""}, {"label": "square", "box": [26.004576000000004, 37.181664, 46.498720000000006, 57.675808], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.898+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:a96f8f8ee2c5ff66d76272a233686f4a03d531707eddb8401957174ea4afcd45','','',-1,'',1,'{"by": "original", "name": "images/train/0002.jpg", "split": "train"}','a96f8f8ee2c5ff66d76272a233686f4a03d531707eddb8401957174ea4afcd45','.jpg','{"image": "images/train/0002.jpg", "width": 64, "height": 64, "objects": [{"label": "square", "box": [10.832704, 30.227648000000002, 28.175424, 47.570368], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.913+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:7779214b1b3338de601010ca89bbaef8c268ee551bcb0aa9570d00dad4859080','','',-1,'',1,'{"by": "original", "name": "images/train/0003.jpg", "split": "train"}','7779214b1b3338de601010ca89bbaef8c268ee551bcb0aa9570d00dad4859080','.jpg','{"image": "images/train/0003.jpg", "width": 64, "height": 64, "objects": [{"label": "circle", "box": [5.242944000000001, 16.177408, 29.974336, 40.9088], "parts": [], "keypoints": [], "score": null, "id": ""}, {"label": "circle", "box": [30.847296, 35.809984, 50.393664, 55.356352], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.921+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:debdd3cb9c60001eaef38b13a554259f15d7fed39ef57856982e17b450ba65e0','','',-1,'',1,'{"by": "original", "name": "images/train/0004.jpg", "split": "train"}','debdd3cb9c60001eaef38b13a554259f15d7fed39ef57856982e17b450ba65e0','.jpg','{"image": "images/train/0004.jpg", "width": 64, "height": 64, "objects": [{"label": "triangle", "box": [21.638527999999997, 8.562143999999998, 45.90016, 29.8536], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.922+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:96380e0615dbb96daae5fdbd7aafa8f6cbcc72ed586f7d9c3cf8ff266228f57d','','',-1,'',1,'{"by": "original", "name": "images/train/0005.jpg", "split": "train"}','96380e0615dbb96daae5fdbd7aafa8f6cbcc72ed586f7d9c3cf8ff266228f57d','.jpg','{"image": "images/train/0005.jpg", "width": 64, "height": 64, "objects": [{"label": "square", "box": [3.4061760000000003, 17.038752, 18.146976000000002, 31.779552], "parts": [], "keypoints": [], "score": null, "id": ""}, {"label": "square", "box": [27.268224000000004, 42.843008, 43.964032, 59.538816], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.922+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:b60641850673ed0de34bf89f7c35aef02b239b925afc96c61f9f1d81810d7cbd','','',-1,'',1,'{"by": "original", "name": "images/train/0006.jpg", "split": "train"}','b60641850673ed0de34bf89f7c35aef02b239b925afc96c61f9f1d81810d7cbd','.jpg','{"image": "images/train/0006.jpg", "width": 64, "height": 64, "objects": [{"label": "circle", "box": [29.118496, 14.663136000000002, 56.841952, 42.386592], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.923+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:a0b857eaf1baa47320385e78b2e56336c160a8d4ca74958f5426550506baf01e','','',-1,'',1,'{"by": "original", "name": "images/train/0007.jpg", "split": "train"}','a0b857eaf1baa47320385e78b2e56336c160a8d4ca74958f5426550506baf01e','.jpg','{"image": "images/train/0007.jpg", "width": 64, "height": 64, "objects": [{"label": "square", "box": [23.542783999999997, 26.998207999999998, 41.102976, 44.5584], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.923+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:764abe63998778740e42c9f9bd19f1dc76924985785e6ea75ad1427773d7fda5','','',-1,'',1,'{"by": "original", "name": "images/train/0008.jpg", "split": "train"}','764abe63998778740e42c9f9bd19f1dc76924985785e6ea75ad1427773d7fda5','.jpg','{"image": "images/train/0008.jpg", "width": 64, "height": 64, "objects": [{"label": "square", "box": [8.613472, 20.698079999999997, 25.485343999999998, 37.569952], "parts": [], "keypoints": [], "score": null, "id": ""}, {"label": "triangle", "box": [28.989759999999997, 6.8717120000000005, 51.800384, 27.491552], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.924+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:25fbfc6f13ac499b1caf1a7b895f70d746a49a2e080ceaba2e653ff2fb87d7dc','','',-1,'',1,'{"by": "original", "name": "images/train/0009.jpg", "split": "train"}','25fbfc6f13ac499b1caf1a7b895f70d746a49a2e080ceaba2e653ff2fb87d7dc','.jpg','{"image": "images/train/0009.jpg", "width": 64, "height": 64, "objects": [{"label": "circle", "box": [6.751263999999999, 4.404896000000001, 30.596832, 28.250464], "parts": [], "keypoints": [], "score": null, "id": ""}, {"label": "square", "box": [36.26592, 28.547392000000002, 54.668736, 46.950208], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.946+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:e3225b692c8e581abfcdf6a9c28320e9d7d96b525ff313aef8206b0a1a8edcd4','','',-1,'',1,'{"by": "original", "name": "images/train/0010.jpg", "split": "train"}','e3225b692c8e581abfcdf6a9c28320e9d7d96b525ff313aef8206b0a1a8edcd4','.jpg','{"image": "images/train/0010.jpg", "width": 64, "height": 64, "objects": [{"label": "triangle", "box": [14.283584000000001, 29.065984, 34.813632, 48.271744], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.952+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','original:656d648c4162954196f54f9aa92c97137bfbdd973b062a0c0fc345fe7aa4c5ba','','',-1,'',1,'{"by": "original", "name": "images/train/0011.jpg", "split": "train"}','656d648c4162954196f54f9aa92c97137bfbdd973b062a0c0fc345fe7aa4c5ba','.jpg','{"image": "images/train/0011.jpg", "width": 64, "height": 64, "objects": [{"label": "square", "box": [36.7216, 29.392511999999996, 53.717952000000004, 46.388864], "parts": [], "keypoints": [], "score": null, "id": ""}, {"label": "circle", "box": [8.470336, 2.150016000000001, 37.675968, 31.355648000000002], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:10.953+00:00');
INSERT INTO "annotation_entries" VALUES('shapes-jbb3a4i6','person:96aae828406dc0eeb4ad1d857e3a0319ed06b1b9df9d0113250aa2b0a2147203','','',10,'',1,'{"name": "", "before": []}','96aae828406dc0eeb4ad1d857e3a0319ed06b1b9df9d0113250aa2b0a2147203','.jpg','{"image": "images/train/0000.jpg", "width": 64, "height": 64, "objects": [{"label": "circle", "box": [24.0, 24.0, 40.0, 40.0], "parts": [], "keypoints": [], "score": null, "id": ""}]}',NULL,'2026-11-29T15:04:11.033+00:00');
CREATE TABLE decisions (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name VARCHAR(63) NOT NULL, 
	version VARCHAR(63) NOT NULL, 
	previous VARCHAR(63), 
	action VARCHAR(20) NOT NULL, 
	"by" VARCHAR(80) NOT NULL, 
	reasons JSON NOT NULL, 
	forced BOOLEAN NOT NULL, 
	gate JSON, 
	evaluations JSON, 
	job_id VARCHAR(32), 
	at VARCHAR(40) NOT NULL
);
INSERT INTO "decisions" VALUES(1,'traffic_signs_mobilenet_v2','1m8kxavbev6gt',NULL,'promoted','starter','[]',0,NULL,NULL,NULL,'2026-11-29T15:03:48.457+00:00');
INSERT INTO "decisions" VALUES(2,'traffic_signs_yolov8n','1m8kxavj3p6re',NULL,'promoted','starter','[]',0,NULL,NULL,NULL,'2026-11-29T15:03:48.649+00:00');
CREATE TABLE evaluations (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR(32) NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	version VARCHAR(63) NOT NULL, 
	dataset VARCHAR(400) NOT NULL, 
	dataset_path TEXT NOT NULL, 
	fingerprint VARCHAR(64) NOT NULL, 
	split VARCHAR(20) NOT NULL, 
	figures JSON NOT NULL, 
	job_id VARCHAR(32), 
	created_at VARCHAR(40) NOT NULL, 
	UNIQUE (id)
);
INSERT INTO "evaluations" VALUES(1,'97237557a2ae4906a0f6d635939cbdff','old-shapes','1m8kxdb9zh8vt','shapes-jbb3a4i6','/srv/vision/home/datasets/shapes-jbb3a4i6/revisions/000001/data.yaml','32982ac74e4b2b026e4632d5ca982b4acecfd23b524aa7c32075b437f2a5c1a6','val','{"accuracy": 0.0, "precision": 0.0, "recall": 0.0, "f1_score": 0.0, "mAP50": 0.0, "mAP50_95": 0.0, "preprocess_time": 4.609, "inference_time": 27.565, "postprocess_time": 0.399, "images": 4.0}','58ed60f667cf4b358869053892aa152a','2026-11-29T15:05:15.812+00:00');
CREATE TABLE jobs (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR(32) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	mode VARCHAR(40), 
	task VARCHAR(20), 
	status VARCHAR(20) NOT NULL, 
	config JSON NOT NULL, 
	recipe JSON NOT NULL, 
	base_model VARCHAR(400), 
	model_name VARCHAR(80), 
	model_id VARCHAR(140), 
	outcome VARCHAR(20), 
	error TEXT, 
	progress FLOAT NOT NULL, 
	current_epoch INTEGER NOT NULL, 
	total_epochs INTEGER NOT NULL, 
	epoch_seconds FLOAT, 
	metrics JSON NOT NULL, 
	pid INTEGER, 
	pid_started FLOAT, 
	attempts INTEGER NOT NULL, 
	crashes INTEGER NOT NULL, 
	checkpoint INTEGER NOT NULL, 
	checkpoint_batch INTEGER NOT NULL, 
	created_at VARCHAR(40) NOT NULL, 
	started_at VARCHAR(40), 
	finished_at VARCHAR(40), 
	updated_at VARCHAR(40) NOT NULL, 
	UNIQUE (id)
);
INSERT INTO "jobs" VALUES(1,'58ed60f667cf4b358869053892aa152a','training','regular','detect','completed','{"data_path": "shapes-jbb3a4i6@1", "model_type": "n", "epochs": 1, "imgsz": 64, "batch": 4, "name": "old-shapes", "resolved": {"mode": "regular", "family": "yolo", "task": "detect", "dataset": "/srv/vision/home/datasets/shapes-jbb3a4i6/revisions/000001/data.yaml", "name": "old-shapes", "epochs": 1, "imgsz": 64, "batch": 4, "patience": 15, "use_freeze_strategy": true, "min_epochs_per_stage": 15, "promote": "never", "hyper": {}, "notes": ["Trains yolov8n from scratch: no pretrained weights of that name in the registry or in VISIONLOOP_PRETRAINED. Import yolov8n.pt as ''yolov8n'', or put it into that folder, to start from them."], "base": {"kind": "scratch", "from": "yolov8n"}}}','{"mode": "regular", "family": "yolo", "task": "detect", "base": {"kind": "scratch", "value": "yolov8n", "family": "yolo", "task": "detect", "default_name": "detect_yolov8n", "sentence": "Trains yolov8n from scratch: no pretrained weights of that name in the registry or in VISIONLOOP_PRETRAINED. Import yolov8n.pt as ''yolov8n'', or put it into that folder, to start from them.", "imgsz": null}, "dataset": "/srv/vision/home/datasets/shapes-jbb3a4i6/revisions/000001/data.yaml", "name": "old-shapes", "epochs": 1, "imgsz": 64, "batch": 4, "patience": 15, "use_freeze_strategy": true, "min_epochs_per_stage": 15, "promote": "never", "hyper": {}, "incremental": null, "old_base": null, "distillation": null, "teacher": null, "notes": ["Trains yolov8n from scratch: no pretrained weights of that name in the registry or in VISIONLOOP_PRETRAINED. Import yolov8n.pt as ''yolov8n'', or put it into that folder, to start from them."]}','old-shapes','old-shapes','old-shapes:1m8kxdb9zh8vt','completed',NULL,100.0,1,1,3.44324610199998915049e+00,'{"loss": 2.601254940032959, "box_loss": 1.0469592809677124, "cls_loss": 0.9323373436927795, "dfl_loss": 0.621958315372467, "val_loss": 1.17343, "accuracy": 0.0, "precision": 0.0, "recall": 0.0, "f1_score": 0.0, "mAP50": 0.0, "mAP50_95": 0.0, "inference_time": 27.565, "fitness": 0.0, "preprocess_time": 4.609, "postprocess_time": 0.399, "images": 4.0}',NULL,1795964651.88,1,0,1,0,'2026-11-29T15:04:11.855+00:00','2026-11-29T15:04:12.195+00:00','2026-11-29T15:05:16.364+00:00','2026-11-29T15:05:16.364+00:00');
INSERT INTO "jobs" VALUES(2,'dd2b4626738f47debafdefde94c32a83','training','regular','detect','stopped','{"data_path": "shapes-jbb3a4i6", "model_type": "n", "epochs": 100, "imgsz": 64, "batch": 4, "name": "never", "resolved": {"mode": "regular", "family": "yolo", "task": "detect", "dataset": "/srv/vision/home/datasets/shapes-jbb3a4i6/revisions/000001/data.yaml", "name": "never", "epochs": 100, "imgsz": 64, "batch": 4, "patience": 15, "use_freeze_strategy": true, "min_epochs_per_stage": 15, "promote": "never", "hyper": {}, "notes": ["Trains yolov8n from scratch: no pretrained weights of that name in the registry or in VISIONLOOP_PRETRAINED. Import yolov8n.pt as ''yolov8n'', or put it into that folder, to start from them."], "base": {"kind": "scratch", "from": "yolov8n"}}}','{"mode": "regular", "family": "yolo", "task": "detect", "base": {"kind": "scratch", "value": "yolov8n", "family": "yolo", "task": "detect", "default_name": "detect_yolov8n", "sentence": "Trains yolov8n from scratch: no pretrained weights of that name in the registry or in VISIONLOOP_PRETRAINED. Import yolov8n.pt as ''yolov8n'', or put it into that folder, to start from them.", "imgsz": null}, "dataset": "/srv/vision/home/datasets/shapes-jbb3a4i6/revisions/000001/data.yaml", "name": "never", "epochs": 100, "imgsz": 64, "batch": 4, "patience": 15, "use_freeze_strategy": true, "min_epochs_per_stage": 15, "promote": "never", "hyper": {}, "incremental": null, "old_base": null, "distillation": null, "teacher": null, "notes": ["Trains yolov8n from scratch: no pretrained weights of that name in the registry or in VISIONLOOP_PRETRAINED. Import yolov8n.pt as ''yolov8n'', or put it into that folder, to start from them."]}','never','never',NULL,NULL,NULL,0.0,0,100,NULL,'{}',NULL,NULL,0,0,0,0,'2026-11-29T15:04:12.118+00:00',NULL,'2026-11-29T15:04:12.264+00:00','2026-11-29T15:04:12.264+00:00');
CREATE TABLE live_quality (
	model VARCHAR(127) NOT NULL, 
	hour VARCHAR(13) NOT NULL, 
	images INTEGER NOT NULL, 
	empty INTEGER NOT NULL, 
	counts JSON NOT NULL, 
	PRIMARY KEY (model, hour)
);
CREATE TABLE models (
	name VARCHAR(63) NOT NULL, 
	version VARCHAR(63) NOT NULL, 
	created_at VARCHAR(40) NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	description TEXT NOT NULL, 
	source JSON NOT NULL, 
	metrics JSON, 
	content VARCHAR(64) NOT NULL, 
	PRIMARY KEY (name, version)
);
INSERT INTO "models" VALUES('traffic_signs_mobilenet_v2','1m8kxavbev6gt','2026-11-29T15:03:48.334+00:00',13816585,'{"format":1,"task":"classify","family":"mobilenet","names":["speed limit 20","speed limit 30","speed limit 50","speed limit 60","speed limit 70","speed limit 80","speed limit 100","speed limit 120","no passing","no passing for trucks","right of way at next crossing","priority road","yield","stop","no vehicles","no entry","general caution","dangerous curve left","dangerous curve right","bumpy road","slippery road","road work","traffic signals","pedestrians","children crossing","end of restrictions","turn right ahead","turn left ahead","ahead only","straight or right","straight or left","keep right","keep left","roundabout"],"architecture":{"torchvision":"mobilenet_v2","width_mult":1.0},"preprocessing":{"resize":"squash","imgsz":64,"resize_to":null,"interpolation":"bilinear","antialias":false,"mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5]},"channels":3,"stride":32,"norm_eps":null,"head_width":null,"keypoint_shape":null,"keypoint_names":null,"confidence":0.25,"iou":0.7,"description":"34 German traffic signs, trained only on drawn pictures."}','{"kind": "starter", "class_counts": {"speed limit 20": 1000, "speed limit 30": 1000, "speed limit 50": 1000, "speed limit 60": 1000, "speed limit 70": 1000, "speed limit 80": 1000, "speed limit 100": 1000, "speed limit 120": 1000, "no passing": 1000, "no passing for trucks": 1000, "right of way at next crossing": 1000, "priority road": 1000, "yield": 1000, "stop": 1000, "no vehicles": 1000, "no entry": 1000, "general caution": 1000, "dangerous curve left": 1000, "dangerous curve right": 1000, "bumpy road": 1000, "slippery road": 1000, "road work": 1000, "traffic signals": 1000, "pedestrians": 1000, "children crossing": 1000, "end of restrictions": 1000, "turn right ahead": 1000, "turn left ahead": 1000, "ahead only": 1000, "straight or right": 1000, "straight or left": 1000, "keep right": 1000, "keep left": 1000, "roundabout": 1000}}',NULL,'c34521bfbcbe82b3d41e0237e2131ecbcb7477d15c2ecfbfbef7d599291a3e3c');
INSERT INTO "models" VALUES('traffic_signs_yolov8n','1m8kxavj3p6re','2026-11-29T15:03:48.547+00:00',18419929,'{"format":1,"task":"detect","family":"yolo","names":["speed limit 20","speed limit 30","speed limit 50","speed limit 60","speed limit 70","speed limit 80","speed limit 100","speed limit 120","no passing","no passing for trucks","right of way at next crossing","priority road","yield","stop","no vehicles","no entry","general caution","dangerous curve left","dangerous curve right","bumpy road","slippery road","road work","traffic signals","pedestrians","children crossing","end of restrictions","turn right ahead","turn left ahead","ahead only","straight or right","straight or left","keep right","keep left","roundabout"],"architecture":{"nc":34,"channels":3,"scales":{"n":[0.33,0.25,1024]},"scale":"n","backbone":[[-1,1,"Conv",[64,3,2]],[-1,1,"Conv",[128,3,2]],[-1,3,"C2f",[128,true]],[-1,1,"Conv",[256,3,2]],[-1,6,"C2f",[256,true]],[-1,1,"Conv",[512,3,2]],[-1,6,"C2f",[512,true]],[-1,1,"Conv",[1024,3,2]],[-1,3,"C2f",[1024,true]],[-1,1,"SPPF",[1024,5]]],"head":[[-1,1,"nn.Upsample",["None",2,"nearest"]],[[-1,6],1,"Concat",[1]],[-1,3,"C2f",[512]],[-1,1,"nn.Upsample",["None",2,"nearest"]],[[-1,4],1,"Concat",[1]],[-1,3,"C2f",[256]],[-1,1,"Conv",[256,3,2]],[[-1,12],1,"Concat",[1]],[-1,3,"C2f",[512]],[-1,1,"Conv",[512,3,2]],[[-1,9],1,"Concat",[1]],[-1,3,"C2f",[1024]],[[15,18,21],1,"Detect",["nc"]]]},"preprocessing":{"resize":"letterbox","imgsz":640,"resize_to":null,"interpolation":"bilinear","antialias":false,"mean":[0.0,0.0,0.0],"std":[1.0,1.0,1.0]},"channels":3,"stride":32,"norm_eps":0.001,"head_width":null,"keypoint_shape":null,"keypoint_names":null,"confidence":0.25,"iou":0.7,"description":"34 German traffic signs, trained only on drawn pictures."}','{"kind": "starter", "class_counts": {"speed limit 20": 1000, "speed limit 30": 1000, "speed limit 50": 1000, "speed limit 60": 1000, "speed limit 70": 1000, "speed limit 80": 1000, "speed limit 100": 1000, "speed limit 120": 1000, "no passing": 1000, "no passing for trucks": 1000, "right of way at next crossing": 1000, "priority road": 1500, "yield": 2000, "stop": 3000, "no vehicles": 1000, "no entry": 1500, "general caution": 1000, "dangerous curve left": 1000, "dangerous curve right": 1000, "bumpy road": 1000, "slippery road": 1000, "road work": 1000, "traffic signals": 1000, "pedestrians": 1000, "children crossing": 1000, "end of restrictions": 1000, "turn right ahead": 1000, "turn left ahead": 1000, "ahead only": 1000, "straight or right": 1000, "straight or left": 1000, "keep right": 1000, "keep left": 1000, "roundabout": 1000}}',NULL,'acd89be0c4d0c7dadd04f1e7bcaff4b9a82055472cf2035c55eb79cb61579c64');
INSERT INTO "models" VALUES('old-shapes','1m8kxdb9zh8vt','2026-11-29T15:05:10.207+00:00',18216450,'{"format":1,"task":"detect","family":"yolo","names":["circle","square","triangle"],"architecture":{"nc":3,"channels":3,"scales":{"n":[0.33,0.25,1024]},"scale":"n","backbone":[[-1,1,"Conv",[64,3,2]],[-1,1,"Conv",[128,3,2]],[-1,3,"C2f",[128,true]],[-1,1,"Conv",[256,3,2]],[-1,6,"C2f",[256,true]],[-1,1,"Conv",[512,3,2]],[-1,6,"C2f",[512,true]],[-1,1,"Conv",[1024,3,2]],[-1,3,"C2f",[1024,true]],[-1,1,"SPPF",[1024,5]]],"head":[[-1,1,"nn.Upsample",["None",2,"nearest"]],[[-1,6],1,"Concat",[1]],[-1,3,"C2f",[512]],[-1,1,"nn.Upsample",["None",2,"nearest"]],[[-1,4],1,"Concat",[1]],[-1,3,"C2f",[256]],[-1,1,"Conv",[256,3,2]],[[-1,12],1,"Concat",[1]],[-1,3,"C2f",[512]],[-1,1,"Conv",[512,3,2]],[[-1,9],1,"Concat",[1]],[-1,3,"C2f",[1024]],[[15,18,21],1,"Detect",["nc"]]]},"preprocessing":{"resize":"letterbox","imgsz":64,"resize_to":null,"interpolation":"bilinear","antialias":false,"mean":[0.0,0.0,0.0],"std":[1.0,1.0,1.0]},"channels":3,"stride":32,"norm_eps":0.001,"head_width":null,"keypoint_shape":null,"keypoint_names":null,"confidence":0.25,"iou":0.7,"description":"Trained from yolov8n."}','{"kind": "train", "job_id": "58ed60f667cf4b358869053892aa152a", "parent": null, "mode": "regular", "base": "yolov8n", "teacher": null, "dataset": "shapes-jbb3a4i6", "dataset_fingerprint": "32982ac74e4b2b026e4632d5ca982b4acecfd23b524aa7c32075b437f2a5c1a6", "class_counts": {"circle": 6, "square": 8, "triangle": 4}}','{"accuracy": 0.0, "precision": 0.0, "recall": 0.0, "f1_score": 0.0, "mAP50": 0.0, "mAP50_95": 0.0, "preprocess_time": 4.609, "inference_time": 27.565, "postprocess_time": 0.399, "images": 4.0, "split": "val", "dataset": "shapes-jbb3a4i6", "evaluation": "97237557a2ae4906a0f6d635939cbdff", "last_updated": "2026-11-29T15:05:15.812+00:00"}','757a82a94f33c1bdecba9731ab1bce62ad5cc959805597a4ac0fa2d03abb17cc');
CREATE TABLE prelabels (
	image_id INTEGER NOT NULL, 
	tool VARCHAR(40) NOT NULL, 
	model_id VARCHAR(130) NOT NULL, 
	confidence DOUBLE, 
	annotations JSON NOT NULL, 
	created_at VARCHAR(40) NOT NULL, 
	PRIMARY KEY (image_id, tool), 
	FOREIGN KEY(image_id) REFERENCES annotated_images (id) ON DELETE CASCADE
);
CREATE TABLE promotions (
	name VARCHAR(63) NOT NULL, 
	version VARCHAR(63) NOT NULL, 
	promoted_at VARCHAR(40) NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "promotions" VALUES('traffic_signs_mobilenet_v2','1m8kxavbev6gt','2026-11-29T15:03:48.458+00:00');
INSERT INTO "promotions" VALUES('traffic_signs_yolov8n','1m8kxavj3p6re','2026-11-29T15:03:48.649+00:00');
CREATE TABLE shadows (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	model_id VARCHAR(127) NOT NULL, 
	against VARCHAR(127), 
	fraction FLOAT NOT NULL, 
	promoted BOOLEAN NOT NULL, 
	started_at VARCHAR(40) NOT NULL, 
	ended_at VARCHAR(40), 
	ended_because VARCHAR(20), 
	figures JSON NOT NULL
);
CREATE TABLE state (
	"key" VARCHAR(80) NOT NULL, 
	number INTEGER NOT NULL, 
	text VARCHAR(200), 
	PRIMARY KEY ("key")
);
INSERT INTO "state" VALUES('schema',2,NULL);
INSERT INTO "state" VALUES('generation',7,NULL);
INSERT INTO "state" VALUES('seeded:traffic_signs_mobilenet_v2',0,'c34521bfbcbe82b3d41e0237e2131ecbcb7477d15c2ecfbfbef7d599291a3e3c');
INSERT INTO "state" VALUES('seeded:traffic_signs_yolov8n',0,'acd89be0c4d0c7dadd04f1e7bcaff4b9a82055472cf2035c55eb79cb61579c64');
INSERT INTO "state" VALUES('active',0,'old-shapes');
CREATE INDEX ix_decisions_name ON decisions (name);
CREATE INDEX ix_evaluations_fingerprint ON evaluations (fingerprint);
CREATE INDEX ix_evaluations_name ON evaluations (name);
CREATE INDEX ix_evaluations_job_id ON evaluations (job_id);
CREATE INDEX ix_jobs_kind ON jobs (kind);
CREATE INDEX ix_jobs_status ON jobs (status);
CREATE INDEX ix_live_quality_hour ON live_quality (hour);
CREATE INDEX ix_annotation_entries_task ON annotation_entries (task);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('decisions',2);
INSERT INTO "sqlite_sequence" VALUES('jobs',2);
INSERT INTO "sqlite_sequence" VALUES('evaluations',1);
COMMIT;
