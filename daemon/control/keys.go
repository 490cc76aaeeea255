package control

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// RotateKey implements JobService. Without an overlap it returns when nobody waits any more who came with the old secret.
func (s *Server) RotateKey(ctx context.Context, r *rtaskv1.RotateKeyRequest) (*rtaskv1.RotateKeyResponse, error) {
	var overlap time.Duration
	if in := r.Overlap; in != nil {
		if overlap = in.AsDuration(); in.CheckValid() != nil || overlap < 0 {
			return nil, connect.NewError(connect.CodeInvalidArgument, "an overlap is a time from 0 on")
		}
	}
	var expires time.Time
	if in := r.ExpiresIn; in != nil {
		if err := in.CheckValid(); err != nil || in.AsDuration() <= 0 {
			return nil, connect.NewError(connect.CodeInvalidArgument, "a key expires after a time above 0")
		}
		expires = time.Now().Add(in.AsDuration())
	}
	info, secret, err := s.Keys.Rotate(r.Key, overlap, expires)
	if err != nil {
		return nil, keyError(err)
	}
	if overlap == 0 {
		s.waits.end(ctx, info.ID)
	}
	s.Logger.Info("API key rotated", "key", info.ID, "name", info.Name, "overlap", overlap, "by", callOf(ctx).Name())
	return &rtaskv1.RotateKeyResponse{Key: keyMessage(info), Secret: string(secret)}, nil
}

// ImportKeys implements JobService.
func (s *Server) ImportKeys(ctx context.Context, r *rtaskv1.ImportKeysRequest) (*rtaskv1.ImportKeysResponse, error) {
	infos, err := s.Keys.Import("the file", r.File)
	if err != nil {
		return nil, keyError(err)
	}
	reply := &rtaskv1.ImportKeysResponse{}
	for _, k := range infos {
		s.Logger.Info("API key imported", "key", k.ID, "name", k.Name, "by", callOf(ctx).Name())
		reply.Keys = append(reply.Keys, keyMessage(k))
	}
	return reply, nil
}
